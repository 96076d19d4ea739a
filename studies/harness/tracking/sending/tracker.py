"""Mirrors a study in MLflow while it trains.

Optuna's storage is the truth. The files of a trial go first to a folder of the outbox, on this
machine. A thread sends them and removes the folder when MLflow has everything. So training never
waits for MLflow, and a server that is down delays a trial but loses nothing. After a kill, the
remaining folders show which trials are not sent yet.
"""

from __future__ import annotations

import itertools
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from makemore.errors import Outage, UserError
from studies.harness.store.text import reason
from studies.harness.store.trials import TrialRecord
from studies.harness.tracking.connection.answers import repeat
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.sending.sender import Sender
from studies.harness.tracking.sending.thread import RETRY, SendingThread

OPEN_WITHIN = 30.0  # seconds in which a server's lost answers are asked for again at the start


class Tracker:
    """Sends the trials of one launch to MLflow in its own thread.

    While the coordinator trains, no method waits for MLflow.

    Args:
        client: an MlflowClient, or None if `begin` gets a function that opens the store.
        experiment_id: the study's experiment.
        outbox: folder of the study for files that are not sent yet.
        launch: id of this launch.
        dataset: name, sha256 and source of the words.
    """

    def __init__(
        self, client: Any, experiment_id: str, outbox: Path, launch: str, dataset: dict[str, str]
    ) -> None:
        self.client = client
        self.experiment_id = experiment_id
        self.outbox = outbox
        self.launch = launch
        self.dataset = dataset
        outbox.mkdir(parents=True, exist_ok=True)
        self._sender: Sender | None = None
        self._open_all: Callable[[], None] = lambda: None
        self._thread = SendingThread(self._open)

    def begin(
        self,
        name: str,
        tags: dict[str, str],
        params: dict[str, Any],
        open_store: Callable[[], None] | None = None,
        *,
        background: bool = False,
    ) -> None:
        """Open the store, create the parent run of this launch, and start the thread.

        Args:
            name: name of the parent run.
            tags: tags of the parent run.
            params: params of the parent run.
            open_store: called first; may set `client` and `experiment_id`.
            background: open the store in the thread; `check` then raises its errors.

        Raises:
            Outage: MLflow stopped answering, or answers wrongly.
        """

        def open_all() -> None:
            if open_store is not None:
                open_store()
            self._sender = Sender(
                self.client, self.experiment_id, self.outbox, self.launch, self.dataset
            )
            self._sender.create_parent(name, tags, params)

        if background:
            self._open_all = open_all
        else:
            with _reporting():
                repeat(open_all, itertools.repeat(RETRY), OPEN_WITHIN, UserError)
        self._thread.start()

    def _open(self) -> Sender:
        with _reporting():
            self._open_all()
        assert self._sender is not None
        return self._sender

    @property
    def parent_id(self) -> str:
        """Id of the parent run, or "" before it is created."""
        return self._sender.parent_id if self._sender else ""

    def check(self) -> None:
        """Raise the error that prevented the store from opening, if it is known by now."""
        if self._thread.failure is not None:
            raise self._thread.failure

    def wait_until_open(self, at_most: float | None = None) -> None:
        """Wait until the store is open or has failed to open, or for `at_most` seconds."""
        self._thread.opened.wait(at_most)

    def start(self, record: TrialRecord) -> None:
        """Follow a trial: about once a second, its new evaluations are sent."""
        self._thread.add(PendingRun(record))

    def adopt(self, record: TrialRecord, folder: Path) -> None:
        """Send a trial that an earlier launch finished; call this before the parent run exists."""
        self._thread.add(PendingRun(record, ended=True, folder=folder, uncertain=True))

    def folder(self, record: TrialRecord) -> Path:
        """Create the outbox folder of a trial; its files become the run's artifacts."""
        path = self.folder_path(record.number, record.tags["launch"])
        path.mkdir(parents=True, exist_ok=True)
        return path

    def folder_path(self, number: int, launch: str) -> Path:
        """Return the path of a trial's outbox folder, which names the launch that sends it."""
        sender = "" if launch == self.launch else f"@{self.launch}"
        return self.outbox / f"{number:05d}-{launch}{sender}"

    def finish(self, record: TrialRecord, folder: Path | None, best: float | None) -> None:
        """End a trial.

        Args:
            record: the trial, complete.
            folder: its outbox folder, or None if the trial was requeued.
            best: the study's lowest dev loss, this trial included; None if there is none.
        """
        run = self._thread.get(record.number, record.tags["launch"])
        if run is not None:
            run.folder = folder
            run.ended = True
        if best is not None:
            self._thread.add_best(record.number, best, record.ended or time.time())

    @contextmanager
    def parent_folder(self) -> Iterator[Path]:
        """Yield a folder for the parent run's files, and move it to the outbox after the block.

        If the block fails, the outbox gets none of the files.
        """
        prefix = f".parent-{self.launch}-"
        with tempfile.TemporaryDirectory(dir=self.outbox, prefix=prefix) as folder:
            path = Path(folder) / "files"
            path.mkdir()
            yield path
            path.rename(self.outbox / f"parent-{self.launch}")

    def finish_parent(self, status: str) -> None:
        """End the parent run with an MLflow status, after all trials are sent."""
        self._thread.parent_status = status

    def drop_model(self, number: int) -> None:
        """Delete a trial's checkpoint from MLflow, now or at a later launch."""
        (self.outbox / f"drop-{number:05d}").touch()

    def close(self, patience: float, at_most: float = math.inf) -> int:
        """Send the rest, and return how many runs are still not sent.

        Args:
            patience: give up after so many seconds without progress.
            at_most: give up after so many seconds, even with progress.
        """
        self._thread.closing = True
        self._thread.wake.set()
        begun = time.monotonic()
        progressed = begun
        left = self.unsent
        while self._thread.is_alive():
            if time.monotonic() >= min(progressed + patience, begun + at_most):
                break
            self._thread.join(0.05)
            if self.unsent < left:
                left = self.unsent
                progressed = time.monotonic()
        return self.unsent

    @property
    def unsent(self) -> int:
        """How many runs MLflow does not have completely, the parent run included."""
        return self._thread.unsent

    @property
    def last_error(self) -> str:
        """Message of the last error of MLflow, or ""."""
        return self._thread.last_error

    @property
    def n_folders(self) -> int:
        """How many finished trials have files in the outbox."""
        return sum(1 for _ in self.outbox.glob("[0-9]*-*"))


@contextmanager
def _reporting() -> Iterator[None]:
    """Raise an error of MLflow as an Outage; other errors are bugs."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise Outage(reason(error)) from None
