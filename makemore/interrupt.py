"""Ctrl-C while a script imports: one word and exit code 130 instead of a traceback.

Scripts import this module first. Before that, while Python starts, Python answers Ctrl-C itself.
"""

from __future__ import annotations

# Python has imported both at its start. Any other import would delay the hook.
import os
import sys

INTERRUPTED = 130  # the shell's code for Ctrl-C


def leave() -> None:
    """End the process at once, as interrupted."""
    try:
        os.write(2, b"Interrupted.\n")
    except OSError:
        pass
    os._exit(INTERRUPTED)


def _report(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    """Print an uncaught exception; only one word if Ctrl-C caused it."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, KeyboardInterrupt):
        cause = cause.__cause__  # for example of the RuntimeError of a class that was being made
    if cause is not None and not hasattr(sys, "ps1"):  # not at Python's prompt
        leave()
    sys.__excepthook__(kind, error, error.__traceback__)


if sys.excepthook is sys.__excepthook__:
    sys.excepthook = _report
