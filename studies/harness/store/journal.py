"""An Optuna journal file that survives killed processes and full disks, and finds damage."""

from __future__ import annotations

import json
import math
import os
import re
import time
import zlib
from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from filelock import FileLock
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock

from makemore.errors import UserError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

BLOCK = 4096  # bytes read at once when the end of the file is searched for a line end
SYNC_EVERY = 0.1  # seconds; a wait for the disk takes some milliseconds
# The end of a line: the CRC-32 of the bytes before it. Lines of older journals have none.
CHECKSUM = re.compile(rb',"crc":"([0-9a-f]{8})"}\n')
CHECKSUM_SIZE = len(',"crc":"01234567"}\n')


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
    """A journal that stays readable after a record was written in part, and that finds damage.

    A killed process or a full disk can leave half a record at the end. The next append removes it.
    Each line has a checksum, so a changed byte is reported and never becomes a wrong trial.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._exclusive = _Lock(path)
        super().__init__(str(path), lock_obj=self._exclusive)
        # `_number` records are read, up to byte `_offset`. The lines in `_written` come next: this
        # process wrote them, so it need not read them from the file.
        self._number = 0
        self._offset = 0
        self._written: deque[bytes] = deque()
        self._synced = -math.inf  # time.monotonic() of the last wait for the disk
        self._is_behind = False  # a state was written after it

    @contextmanager
    def _locked(self) -> Generator[None]:
        with self._reporting_removal():
            self._exclusive.acquire()
        try:
            yield
        finally:
            self._exclusive.release()

    @contextmanager
    def _reporting_removal(self) -> Generator[None]:
        try:
            yield
        except FileNotFoundError:
            raise UserError(
                f"{self._path}: the journal was removed while it was in use; put the file back, or "
                "run the same command again to begin a new study."
            ) from None

    def _open(self, mode: str) -> IO[bytes]:
        with self._reporting_removal():
            return self._path.open(mode)

    def read_logs(self, log_number_from: int) -> Generator[dict[str, Any], None, None]:
        """Yield the records from a number on; a partial last line is left out.

        Raises:
            UserError: a line is damaged, or the file was removed.
        """
        if log_number_from < self._number:
            self._forget()
        while self._written:
            self._advance(line := self._written.popleft())
            record = parse_line(line)
            if record is not None and self._number > log_number_from:
                yield record
        with self._reporting_removal():
            if os.stat(self._path).st_size <= self._offset:
                return
        with self._open("rb") as file:
            file.seek(self._offset)
            while (line := file.readline()).endswith(b"\n"):
                record = parse_line(line)
                if record is None:
                    self._check_again()
                    yield from self.read_logs(max(self._number, log_number_from))
                    return
                self._advance(line)
                if self._number > log_number_from:
                    yield record

    def _advance(self, line: bytes) -> None:
        self._number += 1
        self._offset += len(line)

    def _forget(self) -> None:
        """Read from the start of the file again."""
        self._number = self._offset = 0
        self._written.clear()

    def _check_again(self) -> None:
        """Refuse a damaged line, unless another process was just writing it."""
        with self._locked(), self._open("rb") as file:
            file.seek(self._offset)
            if parse_line(file.readline()) is None:
                raise UserError(
                    f"{self._path}, line {self._number + 1}: the record is damaged; restore the "
                    "file from a copy, or begin a new study with another --study."
                )

    def append_logs(self, logs: list[dict[str, Any]]) -> None:
        """Append whole records after the last whole record.

        Optuna waits for the disk after each record. This journal waits only when a trial changes
        its state, and at most every SYNC_EVERY seconds. A killed process loses nothing. After a
        power cut, the last records may be missing; the next launch trains these trials again.
        """
        lines = [format_line(log) for log in logs]
        with self._locked():
            size = None
            try:
                with self._open("rb+") as file:
                    size = drop_torn_line(file)
                    file.write(b"".join(lines))
                    file.flush()
                    self._sync(file, any("state" in log for log in logs))
            except OSError:
                if size is not None:
                    os.truncate(self._path, size)
                raise
            if size == self._offset + sum(map(len, self._written)):
                self._written.extend(lines)

    def _sync(self, file: IO[bytes], is_needed: bool) -> None:
        """Wait for the disk now, or with a later record if the last wait was just before."""
        self._is_behind |= is_needed
        if self._is_behind and time.monotonic() - self._synced >= SYNC_EVERY:
            os.fsync(file.fileno())
            self._synced = time.monotonic()
            self._is_behind = False


def format_line(log: dict[str, Any]) -> bytes:
    """Return the line of a record: its JSON with a checksum as the last key."""
    text = json.dumps(log, separators=(",", ":")).encode().removesuffix(b"}")
    return text + b',"crc":"%08x"}\n' % zlib.crc32(text)


def parse_line(line: bytes) -> dict[str, Any] | None:
    """Return the record of a line, or None if the line is damaged."""
    text, end = line[:-CHECKSUM_SIZE], line[-CHECKSUM_SIZE:]
    found = CHECKSUM.fullmatch(end)
    if found is not None and int(found[1], 16) != zlib.crc32(text):
        return None
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return None
    if not isinstance(record, dict) or ("crc" in record and found is None):
        return None
    record.pop("crc", None)
    return record


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
