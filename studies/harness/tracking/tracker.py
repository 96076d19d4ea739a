"""The projection of a study to MLflow.

Optuna's storage is the truth. What a trial leaves for MLflow stands first in a folder of the outbox, on this machine; a
thread sends it and removes the folder when MLflow has everything. So training never waits for MLflow, a server that is
away delays a trial and loses nothing, and after a kill the folders that are left say what is still to be sent.
"""

from __future__ import annotations

import math
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from studies.harness.store.text import reason
from studies.harness.store.trials import TrialRecord
from studies.harness.tracking.client import (
    artifact_store,
    context_tags,
    find_runs,
    log_batch,
    log_inputs,
)
from studies.harness.tracking.fields import (
    STATUS,
    final_metrics,
    point_metrics,
    run_name,
    run_params,
)

FLUSH = 1.0  # seconds between two rounds of writes: short trials then cost one call for all their points
GIVE_UP = 3  # runs in a row that could not be sent, after which a round ends
RETRY = 0.5  # seconds between two tries once everything else is done


@dataclass
class _Run:
    """What the sending thread knows of one trial."""

    record: TrialRecord
    ended: bool = False  # the record has its last word
    folder: Path | None = None  # of the outbox, with the artifacts of an ended trial
    run_id: str | None = None
    artifact_uri: str = ""
    sent: int = 0  # points that MLflow has
    described: bool = False  # MLflow has the parameters and the dataset
    sent_all: bool = False
    tried: bool = False  # a call failed, so that MLflow may have more than it acknowledged


class Tracker:
    """Sends the trials of one launch to MLflow from a thread of its own.

    Args:
        client: an MlflowClient, or None when `begin` is given what opens the store.
        experiment_id: the study's experiment.
        outbox: folder for what is not sent yet; one a study.
        launch: id of this launch.
        dataset: name, digest and source of the words.
    """

    def __init__(
        self, client: Any, experiment_id: str, outbox: Path, launch: str, dataset: dict[str, str]
    ) -> None:
        self.client, self.experiment_id, self.outbox, self.launch = (
            client,
            experiment_id,
            outbox,
            launch,
        )
        self.dataset, self.parent_id, self.last_error = dataset, "", ""
        self._runs: dict[tuple[int, str], _Run] = {}
        self._best: list[
            tuple[int, float, float]
        ] = []  # (trial number, best dev loss so far, time), to be sent
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closing = False
        self._parent_status: str | None = None
        self.parent_tags: dict[str, str] = {}  # to be written when the parent run ends
        self._open: Callable[[], None] = lambda: (
            None
        )  # what is left to be done before the first run is sent
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._send_loop, name="mlflow", daemon=True)
        self._opened = threading.Event()
        outbox.mkdir(parents=True, exist_ok=True)

    # ---- called by the coordinator; while it trains, none of these waits for MLflow

    def begin(
        self,
        name: str,
        tags: dict[str, str],
        params: dict[str, Any],
        open_store: Callable[[], None] = lambda: None,
        *,
        beside: bool = False,
    ) -> None:
        """Open the store and this launch's parent run in it, and start sending.

        Args:
            open_store: called first; may set `client` and `experiment_id`.
            beside: do all of it in the tracker's thread, beside the training; `check` then raises what it raised.
        """

        def open_all() -> None:
            open_store()
            run = self.client.create_run(
                self.experiment_id, run_name=name, tags={**context_tags(), **tags}
            )
            self.parent_id = str(run.info.run_id)
            log_inputs(self.client, self.parent_id, self.dataset)
            log_batch(self.client, self.parent_id, params=params)

        if beside:
            self._open = open_all
        else:
            open_all()
        self._thread.start()

    def check(self) -> None:
        """Raise what kept the store from being opened, if it is known already."""
        if self._failure is not None:
            raise self._failure

    def wait_until_open(self, at_most: float | None = None) -> None:
        """Wait until the store was opened or could not be, or so many seconds."""
        self._opened.wait(at_most)

    def start(self, record: TrialRecord) -> None:
        """Follow a trial; what the record gains is sent once a second."""
        with self._lock:
            self._runs[record.number, record.tags["launch"]] = _Run(record)

    def adopt(self, record: TrialRecord, folder: Path) -> None:
        """Send a trial that a launch before this one finished; to be called before the parent run is made."""
        with self._lock:
            self._runs[record.number, record.tags["launch"]] = _Run(
                record, ended=True, folder=folder, tried=True
            )

    def folder(self, record: TrialRecord) -> Path:
        """Make the outbox folder of a trial; what is put in becomes the run's artifacts."""
        path = self.outbox / f"{record.number:05d}-{record.tags['launch']}"
        path.mkdir(parents=True, exist_ok=True)
        return path

    def finish(self, record: TrialRecord, folder: Path | None, best: float | None) -> None:
        """End a trial; `best` is the study's lowest dev loss with it. Without a folder it was given back."""
        with self._lock:
            key = record.number, record.tags["launch"]
            run = self._runs.get(key)
            if run is not None:
                run.ended, run.folder = True, folder
            if best is not None:
                self._best.append((record.number, best, record.ended or time.time()))

    @contextmanager
    def parent_folder(self) -> Iterator[Path]:
        """A folder for the parent run's files; it goes to the outbox when the block ends, whole or not at all."""
        with tempfile.TemporaryDirectory(
            dir=self.outbox, prefix=f".parent-{self.launch}-"
        ) as folder:
            path = Path(folder) / "files"
            path.mkdir()
            yield path
            path.rename(self.outbox / f"parent-{self.launch}")

    def finish_parent(self, status: str) -> None:
        """Have the parent run ended with an MLflow status, after all its trials."""
        self._parent_status = status

    def drop_model(self, number: int) -> None:
        """Have a trial's checkpoint removed from MLflow, now or at a later launch."""
        (self.outbox / f"drop-{number:05d}").touch()

    def close(self, patience: float, at_most: float = math.inf) -> int:
        """Send what is left; returns how many runs are not sent.

        Args:
            patience: seconds without progress after which it gives up.
            at_most: seconds after which it gives up even so.
        """
        self._closing = True
        self._wake.set()
        begun = progressed = time.monotonic()
        left = self.unsent
        while self._thread.is_alive() and time.monotonic() < min(
            progressed + patience, begun + at_most
        ):
            self._thread.join(0.05)
            if self.unsent < left:
                left, progressed = self.unsent, time.monotonic()
        return self.unsent

    @property
    def unsent(self) -> int:
        """How many runs MLflow does not have whole, the parent run among them."""
        return len(self._runs) + (self._parent_status is not None)

    # ---- the sending thread

    def _send_loop(self) -> None:
        try:
            self._open()
        except Exception as error:
            self._failure, self.last_error = error, str(error)
            return
        finally:
            self._opened.set()
        while True:
            closing = self._closing
            done = self._send_all()
            if closing and done:
                return
            if closing:
                time.sleep(RETRY)
            else:
                self._wake.wait(FLUSH)

    def _send_all(self) -> bool:
        """One round; returns whether MLflow has everything that was there at its beginning."""
        with self._lock:
            # What failed before comes last, so that one run that MLflow refuses does not hold up the others.
            runs = sorted(self._runs.items(), key=lambda item: (item[1].tried, item[0]))
        failures = 0
        for key, run in runs:
            if failures == GIVE_UP:
                return False
            if self._try(lambda run=run: self._send(run)):  # type: ignore[misc]
                if run.sent_all:
                    with self._lock:
                        if (
                            self._runs.get(key) is run
                        ):  # a trial that was given back may be trained once more
                            del self._runs[key]
            else:
                failures += 1
        done = self._try(self._send_best) and self._try(self._drop_models) and failures == 0
        if done and self._closing and self._parent_status:
            done = self._try(self._end_parent)
        return done

    def _try(self, send: Callable[[], None]) -> bool:
        """Whether a call went through; what MLflow or the network raise loses nothing, since it is tried again."""
        try:
            send()
            return True
        except Exception as error:
            self.last_error = reason(error, 300)
            return False

    def _send_best(self) -> None:
        with self._lock:
            best = list(self._best)
        if best:
            rows = [("best_dev_loss", loss, number, at) for number, loss, at in best]
            log_batch(self.client, self.parent_id, rows)
            with self._lock:
                del self._best[: len(best)]

    def _send(self, run: _Run) -> None:
        """Send what is new of a trial."""
        record, ended = run.record, run.ended
        if record.state == "INTERRUPTED" and run.run_id is None and not run.tried:
            run.sent_all = True  # MLflow never heard of it, and need not
            return
        found = self._find(record) if run.tried and run.run_id is None else None
        run.tried = True  # until this is through, MLflow may have more than it acknowledged
        final_tags = {"state": record.state, "reason": record.reason} if ended else {}
        if run.run_id is None and found is None:
            found, final_tags = (
                self._create(record, final_tags),
                {},
            )  # with the run, tags cost next to nothing
        if found is not None:
            run.run_id, run.artifact_uri = str(found.info.run_id), found.info.artifact_uri
        assert run.run_id is not None
        points = list(zip(record.points, record.times, strict=False))
        metrics = [row for point, at in points[run.sent :] for row in point_metrics(point, at)]
        params = None if run.described else run_params(record)
        tags = {**final_tags, "mlflow.runName": run_name(record)} if final_tags else None
        if metrics or params or tags:
            log_batch(
                self.client,
                run.run_id,
                metrics + (final_metrics(record) if ended else []),
                params=params,
                tags=tags,
            )
        if not run.described:
            log_inputs(self.client, run.run_id, self.dataset)
        run.sent, run.described = len(points), True
        if ended:
            self._close_run(run, run.run_id)
        run.tried, run.sent_all = False, ended

    def _create(self, record: TrialRecord, final_tags: dict[str, str]) -> Any:
        tags = {
            **context_tags(),
            **record.tags,
            "trial": str(record.number),
            "state": "RUNNING",
            **final_tags,
        }
        tags["mlflow.parentRunId"] = self._parent_of(record)
        started = int(record.started * 1000)
        return self.client.create_run(
            self.experiment_id, start_time=started, run_name=run_name(record), tags=tags
        )

    def _parent_of(self, record: TrialRecord) -> str:
        """The parent run of the trial's own launch, which may be an earlier one; a repeat's is the run it repeats."""
        if "repeat_of" in record.tags:
            repeated = find_runs(self.client, self.experiment_id, trial=record.tags["repeat_of"])
            final = [run for run in repeated if run.data.tags["state"] == "COMPLETE"]
            if final:
                return str(final[0].info.run_id)
        launch = record.tags["launch"]
        if launch == self.launch:
            return self.parent_id
        found = [
            r
            for r in find_runs(self.client, self.experiment_id, launch=launch)
            if "trial" not in r.data.tags
        ]
        return str(found[0].info.run_id) if found else self.parent_id

    def _find(self, record: TrialRecord) -> Any:
        found = find_runs(
            self.client, self.experiment_id, trial=record.number, launch=record.tags["launch"]
        )
        return found[0] if found else None

    def _close_run(self, run: _Run, run_id: str) -> None:
        record = run.record
        if run.folder is not None and run.folder.exists():
            artifact_store(self.client, run.artifact_uri).log_artifacts(str(run.folder))
        self.client.set_terminated(
            run_id, STATUS[record.state], int((record.ended or time.time()) * 1000)
        )
        if run.folder is not None:
            shutil.rmtree(run.folder, ignore_errors=True)

    def _end_parent(self) -> None:
        folder = self.outbox / f"parent-{self.launch}"
        if folder.exists():
            self.client.log_artifacts(self.parent_id, str(folder))
        if self.parent_tags:
            log_batch(self.client, self.parent_id, tags=self.parent_tags)
        self.client.set_terminated(self.parent_id, self._parent_status)
        shutil.rmtree(folder, ignore_errors=True)
        self._parent_status = None

    def _drop_models(self) -> None:
        for mark in sorted(self.outbox.glob("drop-*")):
            number = int(mark.name.removeprefix("drop-"))
            if any(key[0] == number for key in self._runs):
                continue  # its own artifacts come first
            for run in find_runs(self.client, self.experiment_id, trial=number):
                artifact_store(self.client, run.info.artifact_uri).delete_artifacts(
                    "model.safetensors"
                )
            mark.unlink()
