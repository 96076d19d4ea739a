"""Ctrl-C while a script imports: one word and exit code 130 instead of a traceback.

`makemore.cli` imports this module before everything else.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType, TracebackType
from typing import NoReturn

INTERRUPTED = 130  # the shell's code for Ctrl-C


def _leave() -> NoReturn:
    with suppress(OSError):
        os.write(2, b"Interrupted.\n")
    os._exit(INTERRUPTED)


def _report(
    kind: type[BaseException], error: BaseException, traceback: TracebackType | None
) -> None:
    if issubclass(kind, KeyboardInterrupt) and not hasattr(sys, "ps1"):  # not at Python's prompt
        _leave()
    sys.__excepthook__(kind, error, traceback)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _report


@contextmanager
def leave_imports() -> Iterator[None]:
    """Let Ctrl-C end the process at once while an import runs in the block.

    A KeyboardInterrupt in the import of a native library may abort the process.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        place = frame
        while place is not None:
            if place.f_code.co_filename.startswith("<frozen importlib"):
                _leave()
            place = place.f_back
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, stop)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is stop:
            signal.signal(signal.SIGINT, signal.default_int_handler)
