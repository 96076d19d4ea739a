"""What of a trial's record becomes what in MLflow."""

from __future__ import annotations

import math
import time
from typing import Any

from makemore.engines import EvalPoint
from studies.harness.store.trials import TrialRecord

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "INTERRUPTED": "KILLED", "FAIL": "FAILED"}


def run_name(record: TrialRecord) -> str:
    """The score and the number once there is a score: MLflow cuts names at about 18 characters."""
    best = record.best
    number = f"t{record.number:03d}"
    return (
        f"{best.dev_loss:.4f} · {number}"
        if best and record.state in ("COMPLETE", "PRUNED")
        else number
    )


def run_params(record: TrialRecord) -> dict[str, Any]:
    """The config, and what MLflow's charts need beside it."""
    # Their axes are linear: the logarithm of the learning rate has an even one.
    return {**record.config.model_dump(), "log10_lr": round(math.log10(record.config.lr), 4)}


def point_metrics(point: EvalPoint, at: float) -> list[tuple[str, float, int, float]]:
    """The metrics (key, value, step, seconds since the epoch) of one evaluation."""
    # dev_loss first: the compare page preselects the metric that was logged first.
    values = {"dev_loss": point.dev_loss, "train_loss": point.train_loss, "lr": point.lr}
    return [(key, value, point.step, at) for key, value in values.items()]


def final_metrics(record: TrialRecord) -> list[tuple[str, float, int, float]]:
    """The single numbers, and the best losses once more where the last point is not the best.

    MLflow's tables show the latest value of a metric; so the run's dev_loss is that of its checkpoint, as in Optuna.
    """
    best, at = record.best, record.ended or time.time()
    last = record.points[-1].step if record.points else 0
    rows = [(key, float(value), last, at) for key, value in record.metrics.items()]
    if best is not None:
        rows += [
            ("best_step", float(best.step), last, at),
            ("gap", best.dev_loss - best.train_loss, last, at),
        ]
        if best is not record.points[-1]:
            rows += [
                ("dev_loss", best.dev_loss, last, at + 0.001),
                ("train_loss", best.train_loss, last, at + 0.001),
            ]
    return rows
