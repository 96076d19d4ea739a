"""Launches: which processes work on a study, which of them are dead, and the requeue of their trials."""

from __future__ import annotations

import os
import socket
import time
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from filelock import FileLock, Timeout
from optuna.trial import FrozenTrial, TrialState

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

from studies.harness.store.paths import MLRUNS

HEARTBEAT = 30.0  # seconds between two signs of life of a launch
STALE = 4 * HEARTBEAT  # a launch on another host that was silent for so long is taken for dead


@dataclass
class Launch:
    """One process at work on a study, with its sign of life.

    A launch holds a file lock for as long as it lives, which the kernel drops when it dies; on other hosts the time of
    its last heartbeat, an attribute of the study, has to do.
    """

    id: str
    study: optuna.Study
    _lock: FileLock
    _beaten: float = 0.0

    @classmethod
    def begin(cls, study: optuna.Study) -> Launch:
        """Take a new launch id and give the first sign of life."""
        launch_id = f"{time.strftime('%Y%m%d-%H%M%S')}-{uuid.uuid4().hex[:6]}"
        folder = (MLRUNS / "locks").absolute()
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f"launch-{launch_id}.lock")
        lock.acquire()
        launch = cls(launch_id, study, lock)
        launch.beat()
        return launch

    def beat(self) -> None:
        """Write a sign of life if the last one is older than HEARTBEAT."""
        now = time.time()
        if now - self._beaten >= HEARTBEAT:
            lease = {"host": socket.gethostname(), "lock": str(self._lock.lock_file), "seen": now}
            self.study.set_user_attr(f"launch:{self.id}", lease)
            self._beaten = now

    def end(self) -> None:
        """Drop the lock; what still carries this launch's id is free to be taken over."""
        self._lock.release()
        Path(self._lock.lock_file).unlink(missing_ok=True)


def is_alive(lease: dict[str, Any] | None) -> bool:
    """Whether the launch of a lease still runs."""
    if lease is None:
        return False
    if lease["host"] != socket.gethostname():
        return time.time() - float(lease["seen"]) < STALE
    if not os.path.exists(lease["lock"]):
        return False
    try:
        with FileLock(
            lease["lock"], timeout=0.2
        ):  # another process may be asking the same just now
            pass
    except Timeout:
        return True
    Path(lease["lock"]).unlink(missing_ok=True)
    return False


def requeue(study: optuna.Study, trial_id: int) -> None:
    """Let a running trial wait again, with its number, seed and parameters, so that a launch trains it anew."""
    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def requeue_dead(study: optuna.Study, exclude: str = "") -> list[FrozenTrial]:
    """Give back every running trial whose launch is dead, and return them; the launch `exclude` is alive."""
    leases = study.user_attrs
    dead: dict[str, bool] = {exclude: False} if exclude else {}
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        launch = trial.user_attrs.get("launch", "")
        if launch not in dead:
            dead[launch] = not is_alive(leases.get(f"launch:{launch}"))
        if dead[launch]:
            requeue(study, trial._trial_id)
            lost.append(trial)
    return lost
