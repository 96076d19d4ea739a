"""Launches: the processes that work on a study, and the requeue of trials whose launch died."""

from __future__ import annotations

import logging
import math
import os
import socket
import threading
import time
import uuid
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.exceptions import UpdateFinishedTrialError
from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.journal import Journal
from studies.harness.store.locks import backend_of
from studies.harness.store.paths import MLRUNS

logger = logging.getLogger(__name__)
HEARTBEAT = 30.0  # seconds between two heartbeats of a launch
STALE = 4 * HEARTBEAT  # a launch on another host counts as dead after so many seconds of silence
LOCK_WAIT = 0.2  # seconds; another process may hold the lock for a moment, for the same test


@dataclass
class Launch:
    """One process that works on a study.

    It holds a file lock while it lives, and the kernel releases the lock when the process dies.
    Other hosts cannot see the lock; they read the time of the last heartbeat from the study. A
    thread writes the heartbeats, so that a launch is alive however long its main thread takes.
    """

    id: str
    study: optuna.Study
    _lock: FileLock
    _seen: float = math.inf  # time of the last heartbeat
    _lapsed: bool = False
    _ended: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def begin(cls, study: optuna.Study) -> Launch:
        """Create a launch with a new id, take its lock, and start its heartbeat."""
        launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        folder = (MLRUNS / "locks").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"launch-{launch_id}.lock")
        lock.acquire()
        launch = cls(launch_id, study, lock)
        launch._beat()
        threading.Thread(target=launch._beat_until_end, name="heartbeat", daemon=True).start()
        return launch

    def _beat(self) -> None:
        now = time.time()
        lease = {
            "host": this_host(),
            "lock": str(self._lock.lock_file),
            "seen": now,
            "journal": journal_path(self.study),
        }
        self.study.set_user_attr(f"launch:{self.id}", lease)
        self.has_lapsed()
        self._seen = now

    def _beat_until_end(self) -> None:
        while not self._ended.wait(HEARTBEAT):
            try:
                self._beat()
            except Exception as error:  # the main thread meets the same outage, and reports it
                logger.debug("launch %s: no heartbeat (%s)", self.id, error)

    def has_lapsed(self) -> bool:
        """Return whether other hosts could have taken this launch for dead at any time."""
        if time.time() - self._seen >= STALE:
            self._lapsed = True
        return self._lapsed

    def end(self) -> None:
        """Release the lock; other launches of this host then requeue the running trials."""
        self._ended.set()
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def this_host() -> str:
    """Return the name of this host, on Linux with the ids of its start and of its file system.

    Cloned machines have the same name, and so may containers on one machine. Only on the same host
    does a file lock tell whether a launch is alive.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{socket.gethostname()} {boot} {os.readlink('/proc/self/ns/mnt')}"
    except OSError:
        return socket.gethostname()


def journal_path(study: optuna.Study) -> str | None:
    """Return the absolute path of the journal that holds a study; None if a database holds it."""
    backend = backend_of(study._storage)
    return str(backend._path.resolve()) if isinstance(backend, Journal) else None


def lease_of(study: optuna.Study, launch: str | None) -> dict[str, Any] | None:
    """Return the last heartbeat of a launch, for `is_alive`, or None if the study has none.

    The journal of a moved or copied folder still names the lock in the old folder. Such a launch
    lives only if the lock of that name in this folder is held.
    """
    lease: dict[str, Any] | None = study.user_attrs.get(f"launch:{launch}")
    journal = journal_path(study)
    if lease is None or journal is None or lease.get("journal", journal) == journal:
        return lease
    return {**lease, "lock": str(MLRUNS / "locks" / Path(lease["lock"]).name)}


def is_alive(lease: dict[str, Any] | None) -> bool:
    """Return whether a launch still runs.

    Args:
        lease: the launch's last heartbeat, from `lease_of`.
    """
    if lease is None:
        return False
    if lease["host"] != this_host():
        return time.time() - float(lease["seen"]) < STALE
    if not os.path.exists(lease["lock"]):
        return False
    try:
        with FileLock(lease["lock"], timeout=LOCK_WAIT):
            pass
    except Timeout:
        return True
    Path(lease["lock"]).unlink(missing_ok=True)
    return False


def requeue(study: optuna.Study, trial_id: int) -> None:
    """Return a running trial to WAITING; a launch then trains it again with the same seed."""
    with suppress(UpdateFinishedTrialError):  # another launch took it over, and finished it
        study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def requeue_dead(study: optuna.Study, exclude: str = "") -> list[FrozenTrial]:
    """Requeue every running trial whose launch is dead, and return these trials.

    Args:
        exclude: id of a launch that is known to be alive.
    """
    running = (TrialState.RUNNING,)
    launches = {_launch_of(t) for t in study.get_trials(deepcopy=False, states=running)}
    launches.discard(exclude)
    dead = {launch for launch in launches if not is_alive(lease_of(study, launch))}
    # Read again: a launch that has ended since the first read may have finished its trials.
    lost = [
        trial
        for trial in study.get_trials(deepcopy=False, states=running)
        if _launch_of(trial) in dead
    ]
    for trial in lost:
        requeue(study, trial._trial_id)
    return lost


def _launch_of(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("launch", ""))
