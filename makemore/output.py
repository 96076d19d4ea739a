"""Standard output and standard error that never fail: text that cannot be written is dropped."""

from __future__ import annotations

import errno
import io
import os
import sys
from contextlib import suppress
from typing import Any

NAMES = {"stdout": "standard output", "stderr": "standard error"}


class _Dropping(io.FileIO):
    """A file that drops what cannot be written, for example to a closed pipe or a full disk.

    The first failure is reported on standard error, except that of a closed pipe: `head` closes it
    on purpose.
    """

    def __init__(self, descriptor: int, name: str) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._name = name
        self._reported = False

    def write(self, data: Any) -> int | None:  # type: ignore[override]
        try:
            return super().write(data)
        except OSError as error:
            if not self._reported and error.errno != errno.EPIPE:
                self._reported = True
                sentence = f"{NAMES[self._name]}: {error.strerror}; some output is lost.\n"
                with suppress(OSError):
                    os.write(2, sentence.encode())
            return memoryview(data).nbytes


def drop_lost_output() -> None:
    """Make sys.stdout and sys.stderr drop what they cannot write, so that the work continues.

    Characters that the terminal's encoding lacks are written as escapes. Streams that a notebook or
    a test put in place stay as they are.
    """
    _fill_closed_descriptors()
    for descriptor, name in enumerate(NAMES, 1):
        stream = getattr(sys, name)
        if stream is None:  # it was closed when Python started
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))
            continue
        if stream is not getattr(sys, f"__{name}__") or not isinstance(stream, io.TextIOWrapper):
            continue
        with suppress(OSError):
            stream.flush()
        wrapped = io.TextIOWrapper(
            io.BufferedWriter(_Dropping(descriptor, name)),
            encoding=stream.encoding,
            errors="backslashreplace" if stream.errors == "strict" else stream.errors,
            line_buffering=stream.line_buffering,
            write_through=stream.write_through,
        )
        setattr(sys, name, wrapped)
        setattr(sys, f"__{name}__", wrapped)


def _fill_closed_descriptors() -> None:
    """Open the null device in place of closed standard streams.

    Otherwise the next file that is opened, for example a database, would take the number of the
    closed stream, and a library that prints would write into it.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(descriptor)
