"""Thread that sends what a tracker was given: in rounds, until MLflow has everything."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from studies.harness.store.text import reason
from studies.harness.tracking.sending.batches import BatchSender, open_batches
from studies.harness.tracking.sending.models import drop_models
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.sending.sender import Sender

BATCH = 100  # runs in one transaction: others that write to the database wait for it
FLUSH = 1.0  # seconds between two rounds; a short trial then costs one call for all its evaluations
GIVE_UP = 3  # failed runs after which a round ends
RETRY = 0.5  # seconds between two rounds while the tracker closes


class SendingThread(threading.Thread):
    """Opens the store, and sends runs until it is closed.

    Args:
        open_store: the first task; returns the sender, with the parent run.

    Attributes:
        failure: the error of `open_store`.
        opened: set when the store is open or has failed to open.
        last_error: message of the last error.
        parent_status: MLflow status that ends the parent run, after all trials are sent.
        closing: the next rounds are the last ones.
        wake: set to begin a round at once.
    """

    def __init__(self, open_store: Callable[[], Sender]) -> None:
        super().__init__(name="mlflow", daemon=True)
        self._open_store = open_store
        self._sender: Sender | None = None
        self._batches: BatchSender | None = None
        self.failure: Exception | None = None
        self.opened = threading.Event()
        self.last_error = ""
        self.parent_status: str | None = None
        self.closing = False
        self.wake = threading.Event()
        # Shared with the coordinator: runs by (trial number, launch), and rows for `send_best`.
        self._lock = threading.Lock()
        self._runs: dict[tuple[int, str], PendingRun] = {}
        self._best: list[tuple[int, float, float]] = []

    # ---- called by the tracker

    def add(self, run: PendingRun) -> None:
        """Send a run from now on."""
        with self._lock:
            self._runs[run.record.number, run.record.tags["launch"]] = run

    def get(self, number: int, launch: str) -> PendingRun | None:
        """Return the run of a trial that is not sent completely."""
        with self._lock:
            return self._runs.get((number, launch))

    def add_best(self, number: int, loss: float, at: float) -> None:
        """Send the study's lowest dev loss after a trial; `at` is in seconds since the epoch."""
        with self._lock:
            self._best.append((number, loss, at))

    @property
    def unsent(self) -> int:
        """How many runs MLflow does not have completely, the parent run included."""
        return len(self._runs) + (self.parent_status is not None)

    # ---- the rounds

    def run(self) -> None:
        """Open the store, and send in rounds until `closing`, then until MLflow has everything."""
        try:
            self._sender = self._open_store()
            self._batches = open_batches(self._sender)
        except Exception as error:
            self.failure = error
            self.last_error = str(error)
            return
        finally:
            self.opened.set()

        while True:
            closing = self.closing
            done = self._send_all()
            if closing and done:
                return
            if closing:
                time.sleep(RETRY)
            else:
                self.wake.wait(FLUSH)

    def _send_all(self) -> bool:
        """Send one round; return whether MLflow has everything that was there at its start."""
        sender = self._sender
        assert sender is not None
        with self._lock:
            # Failed runs come last: one run that MLflow refuses must not delay the rest.
            pending = sorted(self._runs.items(), key=lambda item: (item[1].uncertain, item[0]))
        runs = [run for _, run in pending]

        failures = 0
        for first in range(0, len(runs), BATCH):
            batch = runs[first : first + BATCH]
            for run in self._send_batch(batch):
                if failures == GIVE_UP:
                    self._forget(batch)
                    return False
                run.alone = not self._try(partial(sender.send, run))
                failures += run.alone
            self._forget(batch)

        done = self._try(partial(self._send_best, sender))
        done = done and self._try(partial(drop_models, sender, self._is_pending))
        done = done and failures == 0
        if done and self.closing and self.parent_status:
            done = self._try(partial(self._end_parent, sender))
        return done

    def _send_batch(self, runs: list[PendingRun]) -> list[PendingRun]:
        """Send runs in one transaction if that is possible; return those to send one by one."""
        together = [run for run in runs if not run.alone]
        if self._batches is None:
            return runs
        if not self._try(partial(self._batches.send, together)):
            for run in together:
                run.alone = True
        return [run for run in runs if run.alone]

    def _forget(self, runs: list[PendingRun]) -> None:
        """Follow those runs no longer of which MLflow has everything."""
        with self._lock:
            for run in runs:
                key = run.record.number, run.record.tags["launch"]
                # A trial that was requeued may have started again under the same key.
                if run.sent and self._runs.get(key) is run:
                    del self._runs[key]

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
        assert self.parent_status is not None
        sender.end_parent(self.parent_status)
        self.parent_status = None
