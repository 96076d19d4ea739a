"""An Optuna journal file that survives killed processes and full disks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from makemore.errors import UserError

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


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


class Journal(JournalFileBackend):
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
                    size = drop_torn_line(file)
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


def check_journal(path: Path) -> None:
    """Refuse a file that holds something else than records, before anything is appended to it or cut from it."""
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    if first and not (first.startswith(b'{"op_code":') or b'{"op_code":'.startswith(first)):
        raise UserError("not a journal")


def drop_torn_line(file: IO[bytes]) -> int:
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
