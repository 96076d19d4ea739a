"""The selected seed, the reproduced loss and the summary of a retraining."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.retraining.results import Outcome, Retraining, SeedResult
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import TrainResult
from makemore.trainer import train

CONFIG = Config(max_steps=20, eval_interval=10, n_hidden=8, init="kaiming")
DATASET = {"name": "names.txt", "sha256": "abc", "source": "names.txt"}


@pytest.fixture(scope="module")
def trained(small_corpus: Corpus) -> TrainResult:
    return train(CONFIG, small_corpus, device="cpu")


def make_retraining(
    trained: TrainResult,
    dev_losses: list[float],
    origin: dict[str, Any] | None = None,
    *,
    select: str = "median",
) -> Retraining:
    seeds = [
        SeedResult(trained, {"train_loss": 9.0, "dev_loss": loss}, np.zeros(1))
        for loss in dev_losses
    ]
    return Retraining("x", CONFIG, origin or {}, DATASET, seeds, select=select)


@pytest.mark.parametrize(
    ("losses", "select", "selected"),
    [
        ([2.2, 2.0, 2.1], "median", 2.1),
        ([2.2, 2.0, 2.1, 2.3], "median", 2.2),  # of two middle seeds the worse
        ([2.2, 2.0, 2.1], "best", 2.0),
        ([2.2], "median", 2.2),
    ],
)
def test_selected_seed_is_the_median_or_the_best(
    trained: TrainResult, losses: list[float], select: str, selected: float
) -> None:
    retraining = make_retraining(trained, losses, select=select)

    assert retraining.selected.losses["dev_loss"] == selected


def test_loss_is_compared_only_with_the_same_training(trained: TrainResult) -> None:
    step_10 = next(point.dev_loss for point in trained.history if point.step == 10)
    origin = {"data_sha256": "abc", "dev_loss": step_10, "best_step": 10}

    assert make_retraining(trained, [2.0], origin).reproduced_loss == step_10
    assert make_retraining(trained, [2.0], origin).summary()["reproduced"] is True
    # Other words, no loss in the origin, or no evaluation at that step.
    changes: list[dict[str, Any]] = [
        {"data_sha256": "other"},
        {"dev_loss": None},
        {"best_step": 11},
    ]
    for change in changes:
        assert make_retraining(trained, [2.0], {**origin, **change}).reproduced_loss is None
    assert make_retraining(trained, [2.0]).summary()["reproduced"] is None


def test_summary_of_one_seed_has_no_spread(trained: TrainResult) -> None:
    one = make_retraining(trained, [2.0]).summary()
    two = make_retraining(trained, [2.0, 2.2]).summary()

    assert one["sd"] == {"train_loss": None, "dev_loss": None}
    assert two["sd"] == {"train_loss": 0.0, "dev_loss": pytest.approx(0.1414, abs=1e-4)}
    assert two["mean"]["dev_loss"] == pytest.approx(2.1)


def test_outcome_without_mlflow_has_no_run(trained: TrainResult) -> None:
    outcome = Outcome(make_retraining(trained, [2.0]), [], None, None, Path("m"), False, [], 0.0)

    summary = outcome.summary(None, None)

    assert (summary["mlflow_run_id"], summary["registered"], summary["comparison"]) == (None,) * 3
    assert [name for name, _ in outcome.sides] == ["x"]
