"""Spread, then TPE: Optuna's contract, the spread of the first trials, reproducible points."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from makemore.config import Config
from studies.harness.search.samplers.spread import SPREAD, SpreadThenTPE, value_at
from studies.harness.search.spaces import describe, distributions
from studies.record import BASE


def eight_parameters(trial: optuna.Trial, base: Config) -> Config:
    """Suggest parameters of all kinds of ranges."""
    return base.replace(
        lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        block_size=trial.suggest_int("block_size", 4, 12),
        n_embd=trial.suggest_int("n_embd", 8, 64, step=8),
        n_hidden=trial.suggest_int("n_hidden", 128, 2048, log=True),
        batch_size=trial.suggest_categorical("batch_size", [128, 256, 512, 1024]),
        dropout=trial.suggest_float("dropout", 0.0, 0.6),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        direct=trial.suggest_categorical("direct", [False, True]),
    )


SPACE = distributions(eight_parameters, BASE)


def make_study(seed: int) -> optuna.Study:
    study = optuna.create_study()
    study.set_user_attr("seed", seed)
    study.set_user_attr("space", describe(eight_parameters, BASE))
    return study


def propose(study: optuna.Study, n: int) -> list[dict[str, Any]]:
    """Ask for n trials, each from its own sampler as in a study, and tell losses of their lr."""
    asked = []
    for _ in range(n):
        study.sampler = SpreadThenTPE(len(study.trials))
        trial = study.ask()
        eight_parameters(trial, BASE)
        study.tell(trial, abs(np.log10(trial.params["lr"]) + 2.5))
        asked.append(trial.params)
    return asked


# ---- Optuna's contract


class TestSpreadThenTPE(BasicSamplerTestCase, RelativeSamplerTestCase):
    """Optuna's contract. Its studies have no attributes "space" and "seed".

    They cannot have them, because the space of a study here is fixed, and the suites change it. The
    suites for several objectives do not apply: a study here has one, the dev loss.
    """

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: SpreadThenTPE(seed=0)


# ---- SpreadThenTPE


def test_first_trials_spread_over_every_range() -> None:
    params = propose(make_study(seed=3), SPREAD)

    # A Sobol sequence puts one point into each sixteenth of a range.
    for name in ("lr", "weight_decay"):
        d: Any = SPACE[name]
        shares = [np.log(p[name] / d.low) / np.log(d.high / d.low) for p in params]
        assert sorted(int(share * SPREAD) for share in shares) == list(range(SPREAD))
    # So each choice comes equally often.
    for name, times in (("batch_size", 4), ("direct", 8), ("n_embd", 2)):
        assert set(Counter(p[name] for p in params).values()) == {times}
    block_sizes = [p["block_size"] for p in params]
    assert (min(block_sizes), max(block_sizes)) == (4, 12)


def test_study_seed_and_trial_number_decide_the_point() -> None:
    one, again, other = make_study(seed=1), make_study(seed=1), make_study(seed=2)
    first = propose(one, 10)
    propose(again, 1)
    # A waiting trial keeps its own parameters, and the points of the other trials do not move.
    again.enqueue_trial(first[1])

    assert propose(again, 9) == first[1:]
    assert propose(other, 1) != first[:1]


def test_tpe_proposes_near_the_best_results() -> None:
    study = make_study(seed=1)
    for params in propose(make_study(seed=5), 30):
        value = abs(np.log10(params["lr"]) + 2.5)
        study.add_trial(optuna.create_trial(value=value, params=params, distributions=SPACE))

    # A random lr would be within a third of a decade of the best one in a third of the trials.
    assert sum(abs(np.log10(p["lr"]) + 2.5) < 1 / 3 for p in propose(study, 20)) >= 13


def test_proposals_need_no_result() -> None:
    study = make_study(seed=1)
    asked = []
    for number in range(SPREAD + 8):
        study.sampler = SpreadThenTPE(number)
        trial = study.ask()
        eight_parameters(trial, BASE)
        asked.append(trial.params)

    assert len({p["lr"] for p in asked}) == SPREAD + 8
    assert all(t.state == TrialState.RUNNING for t in study.trials)


def test_space_of_finished_trials_replaces_a_missing_attribute() -> None:
    study = optuna.create_study()
    params = propose(study, SPREAD)

    # The first trial shows the space. Each later one is alone in its sixteenth of the range.
    d: Any = SPACE["lr"]
    shares = [np.log(p["lr"] / d.low) / np.log(d.high / d.low) for p in params[1:]]
    assert len({int(share * SPREAD) for share in shares}) == SPREAD - 1


@pytest.mark.parametrize(
    ("distribution", "values"),
    [
        (CategoricalDistribution(["a", "b"]), ["a", "a", "b", "b"]),
        (IntDistribution(2, 5), [2, 3, 4, 5]),
        (IntDistribution(50, 300, step=50), [50, 100, 200, 250]),
        (IntDistribution(1, 100, log=True), [1, 2, 7, 27]),
        (FloatDistribution(0.0, 1.0), [0.0, 0.25, 0.5, 0.75]),
        (FloatDistribution(0.0, 1.0, step=0.5), [0.0, 0.0, 0.5, 1.0]),
        (FloatDistribution(1.0, 16.0, log=True), [1.0, 2.0, 4.0, 8.0]),
    ],
)
def test_shares_of_a_range_are_evenly_spaced(distribution: Any, values: list[Any]) -> None:
    assert [value_at(distribution, share) for share in (0.0, 0.25, 0.5, 0.75)] == values
