"""The comparison of two configs on the test split."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.retraining.comparison import compare
from makemore.config import read_config
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs

Retrain = Callable[..., Any]


def test_second_config_is_compared_in_a_sentence(exported: Path, retrain: Retrain) -> None:
    worse = read_config(exported).replace(lr=1e-6, seed=5)
    Path("worse.toml").write_text(worse.to_toml())

    ran = retrain(exported, "--against", "worse.toml", "--seeds", 2, "--json")
    swapped = retrain("worse.toml", "--against", exported, "--seeds", 2, "--json").json

    found = ran.json["comparison"]
    size = f"{-found['difference']:.4f} ± {found['margin']:.4f} nats"
    sentence = f"small is better than worse by {size}"
    assert found["sentence"] == sentence
    assert found["difference"] < -found["margin"] < 0
    assert f"Test loss: {sentence}; 95% interval over words and seeds." in ran.err
    # Swapping the configs changes only the sign.
    assert swapped["comparison"]["difference"] == -found["difference"]
    assert swapped["comparison"]["sentence"] == sentence
    difference = ran.json["mean"]["test_loss"] - swapped["mean"]["test_loss"]
    assert difference == pytest.approx(found["difference"], abs=1e-6)
    # MLflow has the seeds of both configs below one parent.
    client = connect(None)
    parent = client.get_run(ran.json["mlflow_run_id"])
    tags = {"mlflow.parentRunId": parent.info.run_id}
    children = find_runs(client, parent.info.experiment_id, **tags)
    configs = sorted(run.data.tags["config"] for run in children)
    assert configs == ["small", "small", "worse", "worse"]
    assert parent.data.tags["comparison"] == sentence
    assert parent.data.metrics["difference"] == found["difference"]


def test_config_does_not_differ_from_itself(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--against", exported)

    sentence = (
        f"Test loss: no clear difference between {exported} and {exported} "
        "(0.0000 ± 0.0000 nats); 95% interval over words."
    )
    assert sentence in ran.out and "give --seeds 5" in ran.out


def test_one_seed_each_gives_the_ratio_estimate() -> None:
    lengths = np.array([2, 4, 6])
    first = np.array([[3.0, 8.0, 13.0]])
    second = np.array([[4.0, 8.0, 18.0]])

    found = compare(("a", "b"), first, second, lengths)

    # By hand: D = -6 / 12; residuals -1 + 1, 0 + 2, -5 + 3; variance 3 / 2 * 8 / 144;
    # t of 2 degrees of freedom is 4.3027.
    assert found.loss == -0.5
    assert found.margin == pytest.approx(4.302653 * math.sqrt(1 / 12), rel=1e-6)
    assert not found.differs and not found.seeded
    assert found.sentence == "no clear difference between a and b (0.5000 ± 1.2421 nats)"


def test_interval_covers_the_true_difference_at_95_percent() -> None:
    rng = np.random.default_rng(0)
    true = -0.03
    covered = 0
    for _ in range(400):
        lengths = rng.integers(3, 12, 300)
        common = rng.normal(2, 0.5, 300)  # some words are hard for both configs

        def side(
            mean: float, lengths: np.ndarray = lengths, common: np.ndarray = common
        ) -> np.ndarray:
            own, seeds = rng.normal(0, 0.2, 300), rng.normal(0, 0.01, (5, 1))
            return lengths * (common + own + mean + seeds + rng.normal(0, 0.05, (5, 300)))

        found = compare(("a", "b"), side(true), side(0.0), lengths)
        covered += abs(found.loss - true) <= found.margin

    # Three standard deviations of a share of 0.95.
    assert 400 * 0.95 - 14 <= covered <= 400 * 0.95 + 14
