"""Verdicts on the ranges of synthetic studies."""

from __future__ import annotations

from typing import Any

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from makemore.config import Config
from studies.harness.report.judge.ranges import judge_range
from studies.harness.report.results import read_results
from studies.harness.search.spaces import distributions, with_ranges
from tests.studies.synthetic import make_study, random_trials, results_of


def ranked(name: str, best: list[Any], rest: list[Any]) -> pd.DataFrame:
    """Return trials of one parameter: the best in order, then the rest."""
    values = [*best, *rest]
    return pd.DataFrame(
        {"trial": range(len(values)), name: values, "dev_loss": 2.0 + 0.01 * np.arange(len(values))}
    )


RANGES: list[tuple[str, BaseDistribution, list[Any], list[Any], str, str]] = [
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
    # Three of five trials at one of four values may be chance.
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
    # A field of a user's model; its limits are not known.
    ("n_layers", IntDistribution(1, 8), [1, 1, 1, 1, 1], [4] * 5, "limit", "lower"),
    ("n_layers", IntDistribution(2, 8), [2, 2, 2, 2, 2], [4] * 5, "widen", "lower"),
    ("block_size", IntDistribution(8, 32), [32] * 5, [16] * 5, "limit", "upper"),
]


@pytest.mark.parametrize(("name", "distribution", "best", "rest", "verdict", "side"), RANGES)
def test_range_verdict(
    name: str,
    distribution: BaseDistribution,
    best: list[Any],
    rest: list[Any],
    verdict: str,
    side: str,
) -> None:
    found = judge_range(name, distribution, ranked(name, best, rest))

    assert (found.verdict, found.side) == (verdict, side), found.sentence


def judge_blocks(low: int, high: int, best: list[int], rest: list[int]) -> str:
    found = judge_range("block_size", IntDistribution(low, high), ranked("block_size", best, rest))
    return found.sentence


def test_widen_verdict_suggests_a_new_edge() -> None:
    assert judge_blocks(2, 8, [8] * 5, [3] * 5) == (
        "The best 5 trials are within 5% of the upper edge of block_size: widen block_size beyond "
        "8, for example to 16."
    )
    assert judge_blocks(2, 8, [7, 8, 8, 7, 7], [3] * 5) == (
        "The best 5 trials have block_size between 7 and 8, in the upper quarter of its range: "
        "widen block_size beyond 8, for example to 16."
    )


def test_suggested_edge_stays_within_config_limits() -> None:
    # Config refuses 48, twice the edge.
    assert "beyond 24, for example to 32." in judge_blocks(4, 24, [24] * 5, [5] * 5)


def suggests(name: str, distribution: Any) -> Any:
    """Return a space that suggests one parameter, by the public methods of a trial."""

    def space(trial: optuna.Trial, base: Config) -> Config:
        d = distribution
        if isinstance(d, CategoricalDistribution):
            return base.replace(**{name: trial.suggest_categorical(name, d.choices)})
        suggest: Any = trial.suggest_int if isinstance(d, IntDistribution) else trial.suggest_float
        return base.replace(**{name: suggest(name, d.low, d.high, step=d.step, log=d.log)})

    return space


WIDER: list[tuple[str, BaseDistribution, Any, Any, str]] = [
    # name, range, value of the best five, value of the rest, wider range
    ("lr", FloatDistribution(1e-3, 1.0, log=True), 1.0, 0.01, "0.001:3"),
    ("lr", FloatDistribution(1e-3, 1.0, log=True), 1e-3, 0.1, "0.00033:1"),
    ("lr", FloatDistribution(0.3, 1.0), 0.3, 0.8, "0.15:1"),
    ("n_hidden", IntDistribution(50, 300, step=50), 300, 100, "50:600"),
    ("n_hidden", IntDistribution(50, 300, step=50), 50, 200, "25:325"),
    ("n_hidden", IntDistribution(128, 1024, step=128), 1024, 256, "128:2048"),
    ("n_embd", IntDistribution(8, 32, step=4), 8, 20, "4:32"),
    ("block_size", IntDistribution(4, 30), 30, 10, "4:32"),
    ("block_size", IntDistribution(3, 4), 4, 3, "3:5"),
    ("block_size", IntDistribution(3, 4), 3, 4, "2:4"),
    ("batch_size", CategoricalDistribution([32, 64, 128, 256]), 256, 64, "32,64,128,256,512"),
    ("batch_size", CategoricalDistribution([32, 64, 128, 256]), 32, 64, "16,32,64,128,256"),
    ("dropout", FloatDistribution(0.0, 0.5), 0.5, 0.1, "0:0.75"),
    ("dropout", FloatDistribution(0.0, 0.5, step=0.1), 0.5, 0.1, "0:0.7"),
    ("weight_decay", FloatDistribution(1e-4, 1.0, log=True), 1e-4, 0.1, "3.3e-05:1"),
]


@pytest.mark.parametrize(("name", "distribution", "best", "rest", "wider"), WIDER)
def test_wider_range_can_be_searched(
    name: str, distribution: BaseDistribution, best: Any, rest: Any, wider: str
) -> None:
    found = judge_range(name, distribution, ranked(name, [best] * 5, [rest] * 9))

    assert (found.verdict, found.wider) == ("widen", wider), found.sentence

    # A study that searches the old range takes the new one.
    searched = with_ranges(suggests(name, distribution), Config(), {name: found.wider})
    assert distributions(searched, Config())[name] != distribution


def test_limit_verdict_fixes_the_parameter() -> None:
    assert judge_blocks(1, 8, [1] * 5, [4] * 5) == (
        "The best 5 trials are within 5% of the lower edge of block_size; block_size cannot be "
        "smaller than 1, so fix it at 1."
    )


def test_inside_verdict_names_the_values() -> None:
    assert judge_blocks(2, 8, [4, 5, 5, 4, 6], [2] * 5) == (
        "The best 5 trials have block_size between 4 and 6; the range is wide enough."
    )
    assert judge_blocks(2, 8, [5, 8, 8, 3, 7], [2] * 5) == (
        "The best 5 trials have block_size between 3 and 8; too few of them are at an edge to "
        "widen the range."
    )


def test_most_frequent_choice_is_named() -> None:
    space = CategoricalDistribution(["sgd", "adamw"])

    found = judge_range(
        "optimizer", space, ranked("optimizer", ["adamw"] * 4 + ["sgd"], ["sgd"] * 5)
    )

    assert found.sentence == "4 of the best 5 trials have optimizer = adamw."


def test_too_few_trials_give_no_verdict() -> None:
    space = IntDistribution(2, 8)

    few = judge_range("block_size", space, ranked("block_size", [8] * 5, [3] * 4))
    assert few.verdict == "unknown"
    assert few.sentence == (
        "The range of block_size cannot be judged from 9 measured trials; at least 10 are needed."
    )
    assert judge_range("block_size", space, results_of().trials).verdict == "unknown"


def test_parameter_that_matters_is_widened_in_random_study() -> None:
    results = read_results(make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])))

    verdicts = {
        name: judge_range(name, distribution, results.trials).verdict
        for name, distribution in results.space.items()
    }

    assert verdicts["block_size"] == "widen"
