"""Creates the runs of trials with their tags, and sends what is new; called by the tracker."""

from __future__ import annotations

import shutil
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from studies.harness.store.trials import TrialRecord
from studies.harness.tracking.connection.connect import is_server
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.fields import (
    STATUS,
    curve_metrics,
    end_tags,
    end_time,
    final_metrics,
    new_tags,
    run_name,
    run_params,
)
from studies.harness.tracking.runs import (
    context_tags,
    log_artifacts,
    log_batch,
    log_confirmed,
    log_inputs,
    parent_tags,
)
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.stored import NotStored, check_stored, remove_doubles


class SentRun(NamedTuple):
    """The run of an ended trial that this launch has sent."""

    run_id: str
    artifact_uri: str
    state: str


class Sender:
    """Writes the runs of one launch to MLflow. Every method may raise what MLflow raises.

    Args:
        client: an MlflowClient.
        experiment_id: the study's experiment.
        outbox: folder of the study for files that are not sent yet.
        launch: id of this launch.
        dataset: name, sha256 and source of the words.

    Attributes:
        parent_id: id of the launch's parent run, once it exists.
        sent: runs of complete and pruned trials, by trial number. To find a run in MLflow takes
            the longer, the more runs the study has.
    """

    def __init__(
        self, client: Any, experiment_id: str, outbox: Path, launch: str, dataset: dict[str, str]
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.outbox = outbox
        self.launch = launch
        self.dataset = dataset
        self.parent_id = ""
        self.sent: dict[int, SentRun] = {}
        self._parents_of: dict[str, str] = {}  # ids of the parent runs of other launches

    # ---- the parent run

    def create_parent(self, name: str, tags: dict[str, str], params: dict[str, Any]) -> None:
        """Create the parent run of this launch, unless a call whose answer was lost created it."""
        run = self._find_parent(self.launch) or self.client.create_run(
            self.experiment_id, run_name=name, tags={**context_tags(), **tags}
        )
        self.parent_id = str(run.info.run_id)
        log_inputs(self.client, self.parent_id, self.dataset)
        log_batch(self.client, self.parent_id, params=params)
        if is_server(self.client):
            check_stored(self.client, self.parent_id, "RUNNING", params=params)
            parents = self._parents(self.launch)
            remove_doubles(self.client, self.parent_id, parents, lambda run_id: False)

    def _find_parent(self, launch: str) -> Any:
        """Return the parent run of a launch, or None."""
        return next(iter(self._parents(launch)), None)

    def _parents(self, launch: str) -> list[Any]:
        runs = find_runs(self.client, self.experiment_id, launch=launch)
        return [run for run in runs if "trial" not in run.data.tags]

    def send_best(self, rows: list[tuple[int, float, float]]) -> None:
        """Send the lowest dev loss after each trial: (trial number, loss, seconds since the epoch).

        The trial number is the step, so MLflow draws the progress of the search.
        """
        metrics = [("best_dev_loss", loss, number, at) for number, loss, at in rows]
        log_batch(self.client, self.parent_id, metrics)

    def end_parent(self, status: str) -> None:
        """Send the parent run's files and note, and end it with an MLflow status."""
        folder = self.outbox / f"parent-{self.launch}"
        if folder.exists():
            self.client.log_artifacts(self.parent_id, str(folder))
            log_batch(self.client, self.parent_id, tags=parent_tags(folder))
            log_confirmed(self.client, self.experiment_id, folder)
        self.client.set_terminated(self.parent_id, status)
        if is_server(self.client):
            check_stored(self.client, self.parent_id, status, folder=folder)
        shutil.rmtree(folder, ignore_errors=True)

    # ---- the runs of trials

    def send(self, run: PendingRun) -> None:
        """Send the new data of a trial, and update `run`."""
        record = run.record
        ended = run.ended  # read once: the coordinator may end the trial during this call
        if run.needs_no_run:
            run.sent = True
            return

        tags = end_tags(record) if ended else {}
        if self._open_run(run, tags):
            tags = {}  # a new run already has them
        elif ended:
            tags["mlflow.runName"] = run_name(record)
        assert run.run_id is not None
        self._log_new(run, run.run_id, ended, tags)
        if ended:
            self._close_run(run, run.run_id)
        self.complete(run, ended)

    def complete(self, run: PendingRun, ended: bool) -> None:
        """Note that MLflow has all of a trial until now; if it ended, remove its outbox folder."""
        record = run.record
        if ended and record.state in ("COMPLETE", "PRUNED"):
            assert run.run_id is not None
            self.sent[record.number] = SentRun(run.run_id, run.artifact_uri, record.state)
        if ended and run.folder is not None:
            shutil.rmtree(run.folder, ignore_errors=True)
        run.uncertain = False
        run.sent = ended

    def _open_run(self, run: PendingRun, tags: dict[str, str]) -> bool:
        """Find or create the run of a trial; return whether it was created, with these tags."""
        may_exist = run.uncertain
        run.uncertain = True
        if run.run_id is not None:
            return False
        found = self._find(run.record) if may_exist else None
        created = False
        if found is None:
            found = self._create(run.record, tags)
            created = True
        run.run_id = str(found.info.run_id)
        run.artifact_uri = found.info.artifact_uri
        return created

    def _find(self, record: TrialRecord) -> Any:
        """Return the run that an earlier call or launch created for a trial, or None."""
        return next(iter(self._runs_of(record)), None)

    def _runs_of(self, record: TrialRecord) -> list[Any]:
        launch = record.tags["launch"]
        return find_runs(self.client, self.experiment_id, trial=record.number, launch=launch)

    def _create(self, record: TrialRecord, tags: dict[str, str]) -> Any:
        return self.client.create_run(
            self.experiment_id,
            start_time=int(record.started * 1000),
            run_name=run_name(record),
            tags={**context_tags(), **new_tags(record, self.parent_of(record), tags)},
        )

    def parent_of(self, record: TrialRecord) -> str:
        """Return the id of the run to nest a trial under.

        A seed repeat goes under the run that it repeats, every other trial under the parent run of
        the launch that trained it.
        """
        if "repeat_of" in record.tags:
            known = self.sent.get(int(record.tags["repeat_of"]))
            if known and known.state == "COMPLETE":
                return known.run_id
            repeated = find_runs(self.client, self.experiment_id, trial=record.tags["repeat_of"])
            complete = [run for run in repeated if run.data.tags["state"] == "COMPLETE"]
            if complete:
                return str(complete[0].info.run_id)

        launch = record.tags["launch"]
        if launch == self.launch:
            return self.parent_id
        if launch not in self._parents_of:
            parent = self._find_parent(launch)
            if parent is None:
                return self.parent_id
            self._parents_of[launch] = str(parent.info.run_id)
        return self._parents_of[launch]

    def _log_new(self, run: PendingRun, run_id: str, ended: bool, tags: dict[str, str]) -> None:
        """Send the new evaluations of a trial, and its params and dataset at the first call."""
        n_points, metrics = run.new_metrics(ended)
        params = None if run.inputs_sent else run_params(run.record)
        if metrics or params or tags:
            log_batch(self.client, run_id, metrics, params=params, tags=tags)
        if not run.inputs_sent:
            log_inputs(self.client, run_id, self.dataset)
        run.points_sent = n_points
        run.inputs_sent = True

    def _close_run(self, run: PendingRun, run_id: str) -> None:
        """Send the artifacts of an ended trial, and end its run."""
        self.log_files(run)
        self.client.set_terminated(run_id, STATUS[run.record.state], end_time(run.record))
        if is_server(self.client):
            self._check_run(run, run_id)

    def log_files(self, run: PendingRun) -> None:
        """Send the artifacts of an ended trial."""
        if run.folder is not None and run.folder.exists():
            log_artifacts(self.client, run.artifact_uri, run.folder)

    def _check_run(self, run: PendingRun, run_id: str) -> None:
        """Check that the server has a whole run, and has it once; if not, send all of it again.

        Raises:
            NotStored: something is missing.
        """
        record = run.record
        metrics = [*curve_metrics(record), *final_metrics(record)]
        whole = partial(
            check_stored,
            self.client,
            status=STATUS[record.state],
            metrics=metrics,
            params=run_params(record),
            folder=run.folder,
        )

        def is_whole(other: str) -> bool:
            with suppress(NotStored):
                whole(other)
                return True
            return False

        try:
            whole(run_id)
            remove_doubles(self.client, run_id, self._runs_of(record), is_whole)
        except NotStored:
            run.run_id, run.points_sent, run.inputs_sent = None, 0, False
            raise
