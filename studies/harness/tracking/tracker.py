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
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from makemore.errors import Outage, UserError
from studies.harness.store.text import reason
from studies.harness.store.trials import TrialRecord
from studies.harness.tracking.connection.answers import repeat
from studies.harness.tracking.sender import PendingRun, Sender

FLUSH = 1.0  # seconds between two rounds; a short trial then costs one call for all its evaluations
GIVE_UP = 3  # failed runs after which a round ends
OPEN_WITHIN = 30.0  # seconds in which a server's lost answers are asked for again at the start
RETRY = 0.5  # seconds between two rounds while the tracker closes


class Tracker:
    """Sends the trials of one launch to MLflow in its own thread.

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
        self.last_error = ""
        outbox.mkdir(parents=True, exist_ok=True)

        self._sender: Sender | None = None
        self._open_later: Callable[[], None] | None = None  # the thread's first task
        self._failure: Exception | None = None
        self._opened = threading.Event()

        # Shared with the thread: runs by (trial number, launch), and the losses for `send_best`.
        self._lock = threading.Lock()
        self._runs: dict[tuple[int, str], PendingRun] = {}
        self._best: list[tuple[int, float, float]] = []
        self._parent_status: str | None = None
        self._closing = False
        self._wake = threading.Event()
        self._thread = threading.Thread(target=self._send_loop, name="mlflow", daemon=True)

    # ---- called by the coordinator; while it trains, none of these waits for MLflow

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

        def open_later() -> None:
            with _reporting():
                open_all()

        if background:
            self._open_later = open_later
        else:
            with _reporting():
                repeat(open_all, itertools.repeat(RETRY), OPEN_WITHIN, UserError)
        self._thread.start()

    @property
    def parent_id(self) -> str:
        """Id of the parent run, or "" before it is created."""
        return self._sender.parent_id if self._sender else ""

    def check(self) -> None:
        """Raise the error that prevented the store from opening, if it is known by now."""
        if self._failure is not None:
            raise self._failure

    def wait_until_open(self, at_most: float | None = None) -> None:
        """Wait until the store is open or has failed to open, or for `at_most` seconds."""
        self._opened.wait(at_most)

    def start(self, record: TrialRecord) -> None:
        """Follow a trial: about once a second, its new evaluations are sent."""
        with self._lock:
            self._runs[record.number, record.tags["launch"]] = PendingRun(record)

    def adopt(self, record: TrialRecord, folder: Path) -> None:
        """Send a trial that an earlier launch finished; call this before the parent run exists."""
        run = PendingRun(record, ended=True, folder=folder, uncertain=True)
        with self._lock:
            self._runs[record.number, record.tags["launch"]] = run

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
        with self._lock:
            run = self._runs.get((record.number, record.tags["launch"]))
            if run is not None:
                run.folder = folder
                run.ended = True
            if best is not None:
                self._best.append((record.number, best, record.ended or time.time()))

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
        self._parent_status = status

    def drop_model(self, number: int) -> None:
        """Delete a trial's checkpoint from MLflow, now or at a later launch."""
        (self.outbox / f"drop-{number:05d}").touch()

    def close(self, patience: float, at_most: float = math.inf) -> int:
        """Send the rest, and return how many runs are still not sent.

        Args:
            patience: give up after so many seconds without progress.
            at_most: give up after so many seconds, even with progress.
        """
        self._closing = True
        self._wake.set()
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
        return len(self._runs) + (self._parent_status is not None)

    @property
    def n_folders(self) -> int:
        """How many finished trials have files in the outbox."""
        return sum(1 for _ in self.outbox.glob("[0-9]*-*"))

    # ---- the thread

    def _send_loop(self) -> None:
        try:
            if self._open_later is not None:
                self._open_later()
        except Exception as error:
            self._failure = error
            self.last_error = str(error)
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
        """Send one round; return whether MLflow has everything that was there at its start."""
        sender = self._sender
        assert sender is not None
        with self._lock:
            # Failed runs come last: one run that MLflow refuses must not delay the rest.
            runs = sorted(self._runs.items(), key=lambda item: (item[1].uncertain, item[0]))

        failures = 0
        for key, run in runs:
            if failures == GIVE_UP:
                return False
            if not self._try(partial(sender.send, run)):
                failures += 1
            elif run.sent:
                with self._lock:
                    # A trial that was requeued may have started again under the same key.
                    if self._runs.get(key) is run:
                        del self._runs[key]

        done = self._try(partial(self._send_best, sender))
        done = done and self._try(partial(sender.drop_models, self._is_pending))
        done = done and failures == 0
        if done and self._closing and self._parent_status:
            done = self._try(partial(self._end_parent, sender))
        return done

    def _try(self, send: Callable[[], None]) -> bool:
        """Return whether a call succeeded; after an error, the next round tries again."""
        try:
            send()
            return True
        except Exception as error:
            self.last_error = reason(error, 300)
            return False

    def _send_best(self, sender: Sender) -> None:
        with self._lock:
            best = list(self._best)
        if best:
            sender.send_best(best)
            with self._lock:
                del self._best[: len(best)]

    def _is_pending(self, number: int) -> bool:
        with self._lock:
            return any(key[0] == number for key in self._runs)

    def _end_parent(self, sender: Sender) -> None:
        assert self._parent_status is not None
        sender.end_parent(self._parent_status)
        self._parent_status = None


def trial_folders(outbox: Path) -> list[Path]:
    """Return the folders of trials in an outbox; entries that are not of this project are not."""
    return sorted(
        path
        for path in outbox.glob("[0-9]*-*")
        if path.name.split("-", 1)[0].isdecimal() and path.is_dir()
    )


def read_folder_name(folder: Path) -> tuple[int, str, str]:
    """Return the trial number of an outbox folder, the launch that trained, and that which sends.

    The name is NUMBER-LAUNCH, or NUMBER-LAUNCH@SENDER after another launch has adopted the trial.
    """
    number, name = folder.name.split("-", 1)
    launch, _, sender = name.partition("@")
    return int(number), launch, sender or launch


@contextmanager
def _reporting() -> Iterator[None]:
    """Raise an error of MLflow as an Outage; other errors are bugs."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        raise Outage(reason(error)) from None
