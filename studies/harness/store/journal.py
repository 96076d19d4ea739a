"""An Optuna journal file that survives killed processes and full disks."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BLOCK = 4096  # bytes read at once when the end of the file is searched for a line end


class _Lock(JournalFileOpenLock):
    """A lock that the kernel releases when its owner dies.

    Optuna's own lock file stays after a kill and blocks every process for 30 s.
    """

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self._path = path
        self._flock = FileLock(f"{path}.flock")
        self._descriptor = -1

    def __reduce__(self) -> tuple[type[_Lock], tuple[Path]]:
        return _Lock, (self._path,)  # a copy in another process starts without the lock

    def acquire(self) -> bool:
        if fcntl is None:
            self._flock.acquire()
            return True
        # FileLock makes the same calls in ten times the time, and a trial takes this lock 20 times.
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
            os.close(self._descriptor)  # this also releases the lock


class Journal(JournalFileBackend):
    """A journal that stays readable after a record was written in part.

    A killed process or a full disk can leave half a record at the end. The next append removes it.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exclusive = _Lock(path)
        super().__init__(str(path), lock_obj=self._exclusive)

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole records after the last whole record.

        Optuna waits for the disk after each record. This journal waits only when a trial changes
        its state. A killed process loses nothing; a power cut loses at most the reports of running
        trials.
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
    """Refuse a file that is not a journal, before anything is appended to it or cut from it.

    Raises:
        ValueError: the first line is not a record.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        first = file.readline(1_000_000)
    if first and not (first.startswith(b'{"op_code":') or b'{"op_code":'.startswith(first)):
        raise ValueError("not a journal")


def drop_torn_line(file: IO[bytes]) -> int:
    """Cut an incomplete last line, move to the end of the file, and return the size in bytes."""
    size = end = file.seek(0, os.SEEK_END)
    while end > 0:
        start = max(0, end - BLOCK)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            end = start + newline + 1
            break
        end = start
    if end < size:
        file.truncate(end)
    return file.seek(end)
