"""Verdicts on made-up studies whose verdict is known."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from studies.harness.report.judge.budget import judge_budget
from studies.harness.report.judge.pruning import judge_pruning
from studies.harness.report.judge.ranges import judge_boundary
from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import falling, make_study, make_trial, random_trials

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def results_of(*trials: Any) -> Results:
    return read_results(make_study(list(trials)))


def ranked(name: str, best: list[Any], others: list[Any]) -> pd.DataFrame:
    """Trials of one parameter: the best in order, and then the others."""
    values = [*best, *others]
    return pd.DataFrame(
        {"trial": range(len(values)), name: values, "dev_loss": 2.0 + 0.01 * np.arange(len(values))}
    )


# ---- boundaries

BOUNDARIES: list[tuple[str, BaseDistribution, list[Any], list[Any], str, str]] = [
    ("block_size", IntDistribution(2, 8), [8, 8, 8, 8, 8], [2, 3, 4, 5, 6, 7], "widen", "upper"),
    ("block_size", IntDistribution(2, 8), [7, 8, 8, 7, 7], [2, 3, 4, 5, 6], "widen", "upper"),
    ("block_size", IntDistribution(2, 8), [5, 8, 8, 3, 7], [2, 3, 4, 5, 6], "inside", ""),
    (
        "lr",
        FloatDistribution(1e-3, 1.0, log=True),
        [0.8, 0.9, 0.95, 0.1, 0.2],
        [0.01] * 5,
        "widen",
        "upper",
    ),
    (
        "lr",
        FloatDistribution(1e-3, 1.0, log=True),
        [0.3, 0.4, 0.3, 0.2, 0.2],
        [0.01] * 5,
        "inside",
        "",
    ),
    # In a linear range 0.001 to 1 these would be at the lower edge; in log they are in the middle.
    (
        "lr",
        FloatDistribution(1e-3, 1.0, log=True),
        [0.02, 0.03, 0.04, 0.02, 0.03],
        [0.5] * 5,
        "inside",
        "",
    ),
    (
        "lr",
        FloatDistribution(1e-3, 1.0),
        [0.02, 0.03, 0.04, 0.02, 0.03],
        [0.5] * 5,
        "widen",
        "lower",
    ),
    (
        "batch_size",
        CategoricalDistribution([32, 64, 128, 256]),
        [256] * 4 + [32],
        [64] * 5,
        "widen",
        "upper",
    ),
    # Three of five at one of four values is chance.
    (
        "batch_size",
        CategoricalDistribution([32, 64, 128, 256]),
        [256] * 3 + [32, 64],
        [64] * 5,
        "inside",
        "",
    ),
    (
        "optimizer",
        CategoricalDistribution(["sgd", "adamw"]),
        ["adamw"] * 5,
        ["sgd"] * 5,
        "inside",
        "",
    ),
    ("direct", CategoricalDistribution([False, True]), [True] * 5, [False] * 5, "inside", ""),
    (
        "dropout",
        FloatDistribution(0.0, 0.5),
        [0.0, 0.01, 0.0, 0.02, 0.0],
        [0.3] * 5,
        "limit",
        "lower",
    ),
    ("block_size", IntDistribution(1, 8), [1, 1, 1, 1, 1], [4] * 5, "limit", "lower"),
    ("block_size", IntDistribution(8, 32), [32] * 5, [16] * 5, "limit", "upper"),
]


@pytest.mark.parametrize(("name", "distribution", "best", "others", "verdict", "side"), BOUNDARIES)
def test_a_boundary_verdict(
    name: str,
    distribution: BaseDistribution,
    best: list[Any],
    others: list[Any],
    verdict: str,
    side: str,
) -> None:
    found = judge_boundary(name, distribution, ranked(name, best, others))

    assert (found.verdict, found.side) == (verdict, side), found.sentence


def test_a_boundary_verdict_says_what_to_change() -> None:
    found = judge_boundary(
        "block_size", IntDistribution(2, 8), ranked("block_size", [8] * 5, [3] * 5)
    )

    assert found.sentence == (
        "The best 5 trials are within 5% of the upper edge of block_size: widen block_size beyond 8, to 16 for example."
    )


def test_a_suggested_range_stays_within_what_config_takes() -> None:
    found = judge_boundary(
        "block_size", IntDistribution(4, 24), ranked("block_size", [24] * 5, [5] * 5)
    )

    assert "beyond 24, to 32 " in found.sentence  # twice as far would be refused


def test_a_choice_that_wins_is_named() -> None:
    space = CategoricalDistribution(["sgd", "adamw"])

    found = judge_boundary(
        "optimizer", space, ranked("optimizer", ["adamw"] * 4 + ["sgd"], ["sgd"] * 5)
    )

    assert found.sentence == "4 of the best 5 trials have optimizer = adamw."


def test_few_trials_or_none_give_no_boundary_verdict() -> None:
    space = IntDistribution(2, 8)

    assert (
        judge_boundary("block_size", space, ranked("block_size", [8] * 5, [3] * 4)).verdict
        == "unknown"
    )
    assert judge_boundary("block_size", space, results_of().trials).verdict == "unknown"


# ---- budget


def test_losses_that_still_fall_ask_for_more_steps() -> None:
    results = results_of(*[make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)])

    found = judge_budget(results.trials, results.points, 1000)

    assert found.verdict == "lengthen" and found.late == 1
    # At 700 of 1000 steps the loss was 0.5 * 0.6**6 above the end.
    assert found.late_gain == pytest.approx(0.5 * 0.6**6)
    assert "2,000 steps" in found.sentence


def test_a_last_quarter_within_the_noise_is_enough() -> None:
    results = results_of(*[make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)])

    assert judge_budget(results.trials, results.points, 1000, noise_sd=0.03).verdict == "enough"
    assert judge_budget(results.trials, results.points, 1000, noise_sd=0.02).verdict == "lengthen"


def test_losses_that_rise_from_the_first_tenth_ask_for_fewer_steps() -> None:
    results = results_of(
        *[make_trial(PARAMS, [2.1 + 0.01 * i for i in range(10)]) for _ in range(4)]
    )

    assert judge_budget(results.trials, results.points, 1000).verdict == "shorten"


def test_a_best_step_in_the_middle_is_enough_and_few_trials_say_nothing() -> None:
    curve = [2.5, 2.4, 2.3, 2.2, 2.1, 2.1, 2.2, 2.2, 2.2, 2.2]
    results = results_of(*[make_trial(PARAMS, curve) for _ in range(4)])

    assert judge_budget(results.trials, results.points, 1000).verdict == "enough"
    assert judge_budget(results.trials[:3], results.points, 1000).verdict == "unknown"


def test_every_verdict_stands_for_a_random_study() -> None:
    results = read_results(make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])))

    verdicts = {
        name: judge_boundary(name, d, results.trials).verdict for name, d in results.space.items()
    }

    assert verdicts["block_size"] == "widen"
    assert judge_budget(results.trials, results.points, 1000).verdict == "lengthen"
    assert judge_pruning(results.trials, results.points).pruned > 10
