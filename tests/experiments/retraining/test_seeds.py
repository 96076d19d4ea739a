"""Training one config with several seeds in the slots of an engine."""

from __future__ import annotations

from contextlib import closing

import pytest

from experiments.retraining.seeds import make_configs, train_all
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import EngineFailed, Outcome
from makemore.engines.cpu.engine import CpuEngine


class FailingEngine(CpuEngine):
    """An engine whose device fails at its first `failures` evaluations."""

    failures = 0

    def advance(self) -> list[tuple[int, Outcome]]:
        outcomes = super().advance()
        if self.failures and outcomes:
            self.failures -= 1
            return [(outcomes[0][0], EngineFailed("the device is lost")), *outcomes[1:]]
        return outcomes


def test_further_seeds_are_derived_from_the_first() -> None:
    config = Config(max_steps=40, eval_interval=4, seed=11)

    three = make_configs(config, 3, None)
    two = make_configs(config, 2, None)

    assert three[0] == config
    assert three[:2] == two
    assert len({c.seed for c in three}) == 3
    assert [c.replace(seed=11) for c in three] == [config] * 3
    assert make_configs(config.replace(seed=12), 2, None)[1].seed != two[1].seed


def test_eval_interval_changes_with_the_steps() -> None:
    config = Config(max_steps=1000, eval_interval=10)

    assert make_configs(config, 1, 2000)[0].eval_interval == 20
    assert make_configs(config, 1, 50)[0].eval_interval == 1


def test_failed_seed_is_retried_a_limited_number_of_times(small_corpus: Corpus) -> None:
    configs = make_configs(Config(max_steps=30, eval_interval=10, n_hidden=8), 3, None)
    with closing(CpuEngine(small_corpus, 2)) as engine:
        expected = [result.history for result in train_all(engine, configs)]
    assert [history[-1].step for history in expected] == [30] * 3

    with closing(FailingEngine(small_corpus, 2)) as engine:
        engine.failures = 2
        assert [result.history for result in train_all(engine, configs)] == expected

    with closing(FailingEngine(small_corpus, 1)) as engine:
        engine.failures = 3
        with pytest.raises(EngineFailed, match="the device is lost"):
            train_all(engine, configs[:1])


def test_progress_is_a_line_per_seed_in_a_pipe(
    small_corpus: Corpus, capsys: pytest.CaptureFixture[str]
) -> None:
    configs = make_configs(Config(max_steps=20, eval_interval=10, n_hidden=8), 2, None)
    with closing(CpuEngine(small_corpus, 2)) as engine:
        results = train_all(engine, configs, watch="minibatch_loss")

    lines = {
        f"seed {result.model.config.seed}: step 20, "
        f"minibatch {result.history[-1].minibatch_loss:.4f}"
        for result in results
    }
    assert set(capsys.readouterr().err.splitlines()) == lines
