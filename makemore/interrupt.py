"""Ctrl-C while a script imports: one word and exit code 130 instead of a traceback.

Scripts import this module first. Before that, while Python starts, Python answers Ctrl-C itself.
A program or a notebook that imports the project's modules keeps its own answer.
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


def _is_imported_by_script() -> bool:
    """Return whether the main program itself imports this module, not one of its imports."""
    frame = sys._getframe(1).f_back
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "__main__"


if sys.excepthook is sys.__excepthook__ and _is_imported_by_script():
    sys.excepthook = _report
