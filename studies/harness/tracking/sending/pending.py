"""A trial that the tracker follows, and how much of it MLflow has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studies.harness.store.trials import TrialRecord


@dataclass
class PendingRun:
    """A trial, and how much of it MLflow has.

    Attributes:
        record: the trial; the coordinator adds to it while it trains.
        ended: the record is complete.
        folder: outbox folder with the artifacts of an ended trial; None for a requeued trial.
        run_id: id of the MLflow run, once it is known.
        artifact_uri: where the run's artifacts are stored.
        points_sent: how many evaluations MLflow has.
        inputs_sent: MLflow has the params and the dataset.
        sent: MLflow has everything of an ended trial.
        uncertain: the last call failed, and MLflow may have stored some of it.
    """

    record: TrialRecord
    ended: bool = False
    folder: Path | None = None
    run_id: str | None = None
    artifact_uri: str = ""
    points_sent: int = 0
    inputs_sent: bool = False
    sent: bool = False
    uncertain: bool = False
