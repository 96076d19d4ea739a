"""A trial that the tracker follows, and how much of it MLflow has."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from studies.harness.store.trials import TrialRecord
from studies.harness.tracking.fields import MetricRow, curve_metrics, final_metrics


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
        alone: it is not sent in one transaction with others, because that failed.
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
    alone: bool = False

    @property
    def needs_no_run(self) -> bool:
        """Whether the trial was requeued before MLflow had a run of it."""
        return self.record.state == "INTERRUPTED" and self.run_id is None and not self.uncertain

    def new_metrics(self, ended: bool) -> tuple[int, list[MetricRow]]:
        """Return the metrics that MLflow does not have.

        Args:
            ended: the trial has ended; include its final metrics.

        Returns:
            How many evaluations MLflow has after these, and the metrics.
        """
        n_points = len(self.record.points)  # read once: the coordinator may add one meanwhile
        metrics = curve_metrics(self.record, self.points_sent, n_points)
        if ended:
            metrics += final_metrics(self.record)
        # A trial that lost its host is trained again, and has fewer evaluations for a while.
        return max(self.points_sent, n_points), metrics
