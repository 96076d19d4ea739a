"""Sends many trials in two transactions, where MLflow's database can be written directly."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from studies.harness.tracking.connection.connect import is_server
from studies.harness.tracking.fields import (
    STATUS,
    MetricRow,
    end_tags,
    end_time,
    new_tags,
    run_name,
    run_params,
)
from studies.harness.tracking.runs import context_tags
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.sending.sender import Sender

if TYPE_CHECKING:
    from studies.harness.tracking.sending.tables import RunUpdate

TESTED = "3.17."  # the beginning of the version of MLflow whose tables were tested


def open_batches(sender: Sender) -> BatchSender | None:
    """Return a sender of batches; None if only MLflow's client may write to the store.

    The client writes over HTTP, to other databases, with other versions of MLflow, and if MLflow
    has workspaces, which limit what a client may write.
    """
    if is_server(sender.client):
        return None
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore
    from mlflow.version import VERSION

    store = sender.client._tracking_client.store
    if not VERSION.startswith(TESTED) or type(store) is not SqlAlchemyStore:
        return None
    if store.engine.dialect.name not in ("sqlite", "postgresql"):
        return None
    return BatchSender(sender, store)


@dataclass
class _Part:
    """What a batch sends of a trial."""

    run: PendingRun
    ended: bool
    n_points: int
    update: RunUpdate


class BatchSender:
    """Does what `Sender.send` does, for many trials at once.

    Args:
        sender: of this launch, with the parent run.
        store: MLflow's SqlAlchemyStore.
    """

    def __init__(self, sender: Sender, store: Any) -> None:
        from studies.harness.tracking.sending.tables import Tables

        self._sender = sender
        self._tables = Tables(store, int(sender.experiment_id), sender.dataset)

    def send(self, runs: Sequence[PendingRun]) -> None:
        """Send the new data of trials, and update `runs`.

        The first transaction writes the runs. Then the artifacts of ended trials are stored. The
        second transaction ends their runs. A trial that must be sent alone is marked so.

        Raises:
            Exception: as MLflow raises it; all of the trials are then uncertain.
        """
        self._find_uncertain(runs)
        parts = self._parts([run for run in runs if not run.alone])
        if not parts:
            return
        for part in parts:
            part.run.uncertain = True
        location = self._tables.write([part.update for part in parts])
        for part in parts:
            run, run_id = part.run, part.update.run_id
            if run.run_id is None:
                run.run_id, run.artifact_uri = run_id, self._tables.artifact_uri(location, run_id)
            run.points_sent = part.n_points
            run.inputs_sent = True
        self._end([part.run for part in parts if part.ended])
        for part in parts:
            if not part.run.alone:
                self._sender.complete(part.run, part.ended)

    def _find_uncertain(self, runs: Sequence[PendingRun]) -> None:
        """Leave the trials to `Sender.send` of which MLflow may have a part."""
        unsure = [run for run in runs if run.uncertain and not run.alone]
        if not unsure:
            return
        written = self._tables.written([run.record.number for run in unsure])
        for run in unsure:
            key = run.record.number, run.record.tags["launch"]
            run.alone = run.run_id is not None or key in written

    def _parts(self, runs: Sequence[PendingRun]) -> list[_Part]:
        """Return what MLflow does not have of these trials."""
        parts = []
        originals: dict[str, str] = {}  # ids of the new runs of complete trials in this batch
        for run in runs:
            if run.needs_no_run:
                run.sent = True
                continue
            ended = run.ended  # read once: the coordinator may end the trial meanwhile
            n_points, metrics = run.new_metrics(ended)
            tags = end_tags(run.record) if ended else {}
            update = self._update(run, tags, metrics, originals)
            if ended and run.record.state == "COMPLETE":
                originals[str(run.record.number)] = update.run_id
            if ended or metrics or run.run_id is None:
                parts.append(_Part(run, ended, n_points, update))
        return parts

    def _update(
        self,
        run: PendingRun,
        tags: dict[str, str],
        metrics: list[MetricRow],
        originals: dict[str, str],
    ) -> RunUpdate:
        from studies.harness.tracking.sending.tables import RunUpdate, new_id

        record = run.record
        if run.run_id is not None:
            if tags:
                tags["mlflow.runName"] = run_name(record)
            return RunUpdate(run.run_id, tags, metrics)
        parent = originals.get(record.tags.get("repeat_of", "")) or self._sender.parent_of(record)
        return RunUpdate(
            new_id(),
            {**context_tags(), **new_tags(record, parent, tags)},
            metrics,
            # MLflow takes the current time for 0.
            started=int(record.started * 1000) or int(time.time() * 1000),
            name=run_name(record),
            params=run_params(record),
        )

    def _end(self, runs: Sequence[PendingRun]) -> None:
        """Store the artifacts of ended trials, and end their runs."""
        from studies.harness.tracking.sending.tables import RunEnd

        ends = []
        for run in runs:
            try:
                self._sender.log_files(run)
            except Exception:  # `Sender.send` tries again and reports it
                run.alone = True
                continue
            record = run.record
            assert run.run_id is not None
            status = STATUS[record.state]
            ends.append(RunEnd(run.run_id, run_name(record), status, end_time(record)))
        self._tables.end(ends)
