"""The regret of the range test's rules: its trainings, and the ranking of the rules."""

from __future__ import annotations

import numpy as np
import pytest

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged
from makemore.engines.base import DIVERGED_LOSS
from makemore.lr_sweep import DEFAULT_RULE, RULES, lr_range_test
from makemore.trainer import train
from studies.harness.search.learning_rate.audit import (
    MODELS,
    N_LRS,
    N_SEEDS,
    LrAudit,
    Model,
    audit,
    rank,
    train_all,
)

TINY = Model("tiny", "a tiny model", Config(n_embd=2, n_hidden=8, batch_size=4), 1e-2, 10.0)


def test_regret_is_the_loss_above_the_lowest_of_the_sweep(small_corpus: Corpus) -> None:
    done = audit(TINY, small_corpus, steps=30, range_steps=50, stop=None, seed=4, slots=2)

    def dev_loss(lr: float) -> float:
        config = TINY.config.replace(lr=lr, seed=4, max_steps=30, eval_interval=30)
        return train(config, small_corpus, device="cpu").history[-1].dev_loss

    # The sweep is a grid over the range. All trainings have the seed of the audit.
    assert done.lrs == pytest.approx(np.geomspace(1e-2, 10, N_LRS))
    assert done.dev_losses.tolist() == [dev_loss(lr) for lr in done.lrs.tolist()]
    assert done.dev_losses[done.lrs.tolist().index(done.best_lr)] == done.dev_losses.min()
    # There is a range test for each seed, and each suggestion is trained.
    tests = [
        lr_range_test(
            TINY.config.replace(seed=seed), small_corpus, lo=1e-2, hi=10.0, n_steps=50, stop=None
        )
        for seed in range(4, 4 + N_SEEDS)
    ]
    for rule in RULES:
        assert done.suggestions[rule].tolist() == [test.suggest(rule) for test in tests]
        trained = [dev_loss(lr) for lr in done.suggestions[rule].tolist()]
        assert done.regrets[rule].tolist() == [loss - done.dev_losses.min() for loss in trained]


def test_diverged_training_has_the_loss_of_divergence(small_corpus: Corpus) -> None:
    config = TINY.config.replace(max_steps=20, eval_interval=20)
    with pytest.raises(Diverged):
        train(config.replace(lr=1e6), small_corpus, device="cpu")

    losses = train_all([config.replace(lr=lr) for lr in (0.1, 1e6, 0.2, 1e7, 0.3)], small_corpus, 2)

    assert losses[1] == losses[3] == DIVERGED_LOSS
    expected = [
        train(config.replace(lr=lr), small_corpus, device="cpu").best.dev_loss
        for lr in (0.1, 0.2, 0.3)
    ]
    assert [losses[0], losses[2], losses[4]] == expected


def test_rules_rank_by_their_mean_median_regret() -> None:
    def made_up(**losses: list[float]) -> LrAudit:
        at = {rule: np.array(losses.get(rule, [9.0, 9.0, 9.0])) for rule in RULES}
        return LrAudit(TINY, np.array([0.1, 0.2]), np.array([3.0, 2.0]), at, at)

    # Medians: 0.1 and 0.5 for slide, 0.4 and 0.1 for valley. The worst case does not count.
    audits = [
        made_up(slide=[2.1, 2.0, 2.2], valley=[2.4, 2.4, 300.0]),
        made_up(slide=[2.5] * 3, valley=[2.1] * 3),
    ]

    ranks = rank(audits)
    assert list(ranks)[:2] == ["valley", "slide"]
    assert (ranks["valley"], ranks["slide"], ranks["tenth"]) == pytest.approx((0.25, 0.3, 7.0))


@pytest.mark.slow
def test_default_rule_trains_well_on_the_smaller_model(corpus: Corpus) -> None:
    done = audit(MODELS[1], corpus, steps=2000, range_steps=1000, stop=4.0, seed=0, slots=2)

    medians = {rule: float(np.median(regrets)) for rule, regrets in done.regrets.items()}
    # Rules that read the slope have a much higher regret.
    assert all(
        medians[DEFAULT_RULE] < medians[rule] / 2 for rule in ("valley", "tenth", "steepest")
    )
    assert medians[DEFAULT_RULE] < 0.25
