"""Maps a TrialRecord to MLflow fields: status, run name, tags, params and metrics."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from typing import Any

from studies.harness.store.trials import TrialRecord

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


def new_tags(record: TrialRecord, parent_id: str, tags: dict[str, str]) -> dict[str, str]:
    """Return the tags of a trial's new run, except MLflow's own.

    Args:
        record: the trial.
        parent_id: id of the run to nest it under.
        tags: from `end_tags` if the trial has ended.
    """
    return {
        **record.tags,
        "trial": str(record.number),
        "config_id": config_id(record),
        "state": "RUNNING",
        **tags,
        "mlflow.parentRunId": parent_id,
    }


def end_tags(record: TrialRecord) -> dict[str, str]:
    """Return the tags of an ended trial; it may have become audited since its run was created."""
    return {**record.tags, "state": record.state, "reason": record.reason}


def end_time(record: TrialRecord) -> int:
    """Return when a trial ended, in milliseconds since the epoch."""
    return int((record.ended or time.time()) * 1000)


def run_params(record: TrialRecord) -> dict[str, Any]:
    """Return the config, and log10 of lr, because the axes of MLflow's charts are linear."""
    return {**record.config.model_dump(), "log10_lr": round(math.log10(record.config.lr), 4)}


def loss_key(tags: Mapping[str, Any]) -> str:
    """Return the name of a run's dev loss, which differs for a seed repeat.

    So a seed repeat does not outrank the trials when MLflow sorts the runs by dev_loss.

    Args:
        tags: of the trial or of its run.
    """
    return "repeat_dev_loss" if "repeat_of" in tags else "dev_loss"


def run_dev_loss(run: Any) -> float | None:
    """Return the dev loss of an MLflow run; None if it has none."""
    metrics: dict[str, float] = run.data.metrics
    # Earlier releases wrote dev_loss for seed repeats too.
    return metrics.get(loss_key(run.data.tags), metrics.get("dev_loss"))


def config_id(record: TrialRecord) -> str:
    """Return the number of the trial that found the config: MLflow's table can be grouped by it."""
    tags = record.tags
    return tags.get("repeat_of") or tags.get("finishes") or str(record.number)


def curve_metrics(record: TrialRecord, first: int = 0, end: int | None = None) -> list[MetricRow]:
    """Return the metrics of a trial's evaluations, from number `first` to before number `end`.

    dev_loss (repeat_dev_loss of a seed repeat) is the lowest one so far, which is that of the
    checkpoint. MLflow's tables show the latest value of a metric, so they show the same dev loss as
    Optuna, also of a trial whose last evaluation is not its best one. The names that begin with
    "current" are of the evaluation itself; current_lr is not the parameter lr, because the schedule
    lowers it.
    """
    rows = []
    lowest = math.inf
    evaluations = list(zip(record.points, record.times, strict=False))[:end]
    for number, (point, at) in enumerate(evaluations):
        lowest = min(lowest, point.dev_loss)
        # dev_loss comes first: the compare page preselects the metric that was logged first.
        values = {
            loss_key(record.tags): lowest,
            "current_dev_loss": point.dev_loss,
            "minibatch_loss": point.minibatch_loss,
            "current_lr": point.lr,
        }
        if number >= first:
            rows += [(key, value, point.step, at) for key, value in values.items()]
    return rows


def final_metrics(record: TrialRecord) -> list[MetricRow]:
    """Return the metrics of an ended trial that are single numbers, at its last step."""
    best = record.best
    at = record.ended or time.time()
    last = record.points[-1].step if record.points else 0
    rows = [(key, float(value), last, at) for key, value in record.metrics.items()]
    if best is not None:
        rows.append(("best_step", float(best.step), last, at))
    return rows
