"""Maps a TrialRecord to MLflow fields: status, run name, params and metrics."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from studies.harness.store.trials import TrialRecord

if TYPE_CHECKING:
    from makemore.engines import EvalPoint

# MLflow's status of a run for each state of a trial.
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "INTERRUPTED": "KILLED", "FAIL": "FAILED"}

MetricRow = tuple[str, float, int, float]  # key, value, step, seconds since the epoch


def run_name(record: TrialRecord) -> str:
    """Return the run's name: the trial number, after the score if there is one.

    MLflow shows only the first 18 characters or so.
    """
    number = f"t{record.number:03d}"
    best = record.best
    if best is None or record.state not in ("COMPLETE", "PRUNED"):
        return number
    return f"{best.dev_loss:.4f} · {number}"


def run_params(record: TrialRecord) -> dict[str, Any]:
    """Return the config, and log10 of lr, because the axes of MLflow's charts are linear."""
    return {**record.config.model_dump(), "log10_lr": round(math.log10(record.config.lr), 4)}


def point_metrics(point: EvalPoint, at: float) -> list[MetricRow]:
    """Return the metrics of one evaluation, made `at` seconds since the epoch."""
    # dev_loss comes first: the compare page preselects the metric that was logged first.
    values = {"dev_loss": point.dev_loss, "train_loss": point.train_loss, "lr": point.lr}
    return [(key, value, point.step, at) for key, value in values.items()]


def final_metrics(record: TrialRecord) -> list[MetricRow]:
    """Return the metrics of an ended trial: its single numbers, and its best losses.

    MLflow's tables show the latest value of a metric. If the last evaluation is not the best one,
    the best losses are logged again. Tables then show the loss of the checkpoint, as Optuna does.
    """
    best = record.best
    at = record.ended or time.time()
    last = record.points[-1].step if record.points else 0
    rows = [(key, float(value), last, at) for key, value in record.metrics.items()]
    if best is None:
        return rows

    rows.append(("best_step", float(best.step), last, at))
    rows.append(("gap", best.dev_loss - best.train_loss, last, at))
    if best is not record.points[-1]:
        rows.append(("dev_loss", best.dev_loss, last, at + 0.001))
        rows.append(("train_loss", best.train_loss, last, at + 0.001))
    return rows
