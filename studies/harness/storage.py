"""Optuna's storage: where a study lives, who works on it, and which of its trials nobody trains any more."""

from __future__ import annotations

import json
import os
import re
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import optuna
from filelock import FileLock, Timeout
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.trial import FrozenTrial, TrialState

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

MLRUNS = Path("mlruns")
HEARTBEAT = 30.0  # seconds between two signs of life of a launch
STALE = 4 * HEARTBEAT  # a launch on another host that was silent for so long is taken for dead


class _Lock(JournalFileOpenLock):
    """A journal lock that the kernel releases when its owner dies; Optuna's own would block for 30 s after a kill."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._flock = FileLock(f"{path}.flock")
        self._descriptor = -1

    def acquire(self) -> bool:
        if fcntl is None:  # Windows
            self._flock.acquire()
            return True
        # What FileLock does, in a tenth of its time; a trial takes this lock twenty times.
        self._descriptor = os.open(self._flock.lock_file, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX)
        except OSError:
            os.close(self._descriptor)
            raise
        return True

    def release(self) -> None:
        if fcntl is None:
            self._flock.release()
        else:
            os.close(self._descriptor)  # the lock goes with it


class _Journal(JournalFileBackend):
    """A journal in which a record that was not written whole, by a killed process or on a full disk, does no harm."""

    def __init__(self, path: Path) -> None:
        self._path, self._exclusive = path, _Lock(path)
        super().__init__(str(path), lock_obj=self._exclusive)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole records, behind the last whole one.

        Optuna waits for the disk at each record; here only the change of a trial's state does, with all that was
        written before it. A killed process loses nothing by that, a power cut at most what running trials reported.
        """
        text = "".join(json.dumps(log, separators=(",", ":")) + "\n" for log in logs).encode()
        self._exclusive.acquire()
        try:
            size = None
            try:
                with self._path.open("rb+") as file:
                    size = _drop_torn_line(file)
                    file.write(text)
                    file.flush()
                    if any("state" in log for log in logs):
                        os.fsync(file.fileno())
            except OSError:
                if size is not None:
                    os.truncate(self._path, size)
                raise
        finally:
            self._exclusive.release()


def check_study_name(name: str) -> str:
    """Return the name.

    Raises:
        ValueError: the name cannot be a file name and a tag everywhere; one sentence with the rule.
    """
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", name):
        shown = name if len(name) <= 40 else name[:37] + "..."
        raise ValueError(
            f"study name {shown!r} cannot be used; take 1 to 100 of the characters a-z A-Z 0-9 . _ - and begin with a "
            "letter or a digit."
        )
    return name


def without_password(url: str) -> str:
    """A URL that may be shown: the password, if it holds one, is replaced by ***, and so is a query's."""
    url = re.sub(r"(://[^/@\s:]*):\S*@", r"\1:***@", url)  # up to the last @: a password may hold one, and a slash
    return re.sub(r"(?i)([?&](?:password|token|secret|sslpassword)=)[^&\s]*", r"\1***", url)


def open_storage(spec: str | None, study: str, *, create: bool = True) -> BaseStorage:
    """Open the Optuna storage of a study.

    Args:
        spec: an Optuna URL, the path of a journal file, or None for mlruns/optuna/<study>.journal.
        create: make what is missing; otherwise a missing store is an error.

    Raises:
        ValueError: the store cannot be reached, made or read; one sentence, without the password.
    """
    if spec is not None and "://" in spec:
        return _open_url(spec, create=create)
    path = Path(spec) if spec else MLRUNS / "optuna" / f"{check_study_name(study)}.journal"
    if not create and not path.is_file():
        raise ValueError(f"{path}: no such journal; name a study that exists, or give its --storage.")
    if path.is_dir():
        raise ValueError(f"{path}: is a directory; give --storage the path of a journal file or an Optuna URL.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _check_journal(path)
        return JournalStorage(_Journal(path))
    except OSError as error:
        raise ValueError(f"{path}: the journal cannot be opened ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise ValueError(f"{path}: is not an Optuna journal; give --storage another path.") from None


def _open_url(url: str, *, create: bool) -> BaseStorage:
    shown = without_password(url)
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)  # SQLAlchemy would look for psycopg2
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///").split("?")[0])
        if not create and not file.is_file():
            raise ValueError(f"{file}: no such SQLite file; name a study that exists, or give its --storage.")
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive("storage"):  # two processes that create the tables together would crash one of them
            return RDBStorage(url)
    except Exception as error:  # SQLAlchemy and each driver have exceptions of their own, and they carry the password
        reason = without_password(str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__)
        raise ValueError(f"storage {shown} cannot be opened: {reason[:200]}") from None


def _check_journal(path: Path) -> None:
    """Refuse a file that holds something else than records, before anything is appended to it or cut from it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    if first and not (first.startswith(b'{"op_code":') or b'{"op_code":'.startswith(first)):
        raise ValueError("not a journal")


def _drop_torn_line(file: IO[bytes]) -> int:
    """Cut what stands behind the last complete line and go there; returns the size that is left."""
    size = end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    return file.seek(end)


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock between the processes that share this mlruns/."""
    folder = MLRUNS / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield


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
        with FileLock(lease["lock"], timeout=0.2):  # another process may be asking the same just now
            pass
    except Timeout:
        return True
    Path(lease["lock"]).unlink(missing_ok=True)
    return False


def give_back(study: optuna.Study, trial_id: int) -> None:
    """Let a running trial wait again, with its number, seed and parameters, so that a launch trains it anew."""
    study._storage.set_trial_state_values(trial_id, TrialState.WAITING)


def take_over(study: optuna.Study, but: str = "") -> list[FrozenTrial]:
    """Give back every running trial whose launch is dead, and return them; the launch `but` is known to live."""
    leases = study.user_attrs
    dead: dict[str, bool] = {but: False} if but else {}
    lost = []
    for trial in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        launch = trial.user_attrs.get("launch", "")
        if launch not in dead:
            dead[launch] = not is_alive(leases.get(f"launch:{launch}"))
        if dead[launch]:
            give_back(study, trial._trial_id)
            lost.append(trial)
    return lost
