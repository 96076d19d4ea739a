"""Ctrl-C, or bad input, while a script loads: one sentence instead of a traceback.

Ctrl-C ends the script with exit code 130. A UserError, for example of a mistyped field of a study's
base config, ends it with 2.

Scripts import this module first. Before that, while Python starts, Python answers Ctrl-C itself.
A program or a notebook that imports the project's modules keeps its own answer.
"""

from __future__ import annotations

# Python has imported both at its start. Any other import would delay the hook.
import os
import sys

BAD_INPUT = 2
INTERRUPTED = 130  # the shell's code for Ctrl-C


def leave(code: int = INTERRUPTED, sentence: str = "Interrupted.") -> None:
    """Print a sentence on stderr, and end the process at once; by default as interrupted."""
    try:
        os.write(2, f"{sentence}\n".encode(errors="backslashreplace"))
    except OSError:
        pass
    os._exit(code)


def _report(kind: type[BaseException], error: BaseException, traceback: object) -> None:
    """Print an uncaught exception; only one sentence if Ctrl-C or bad input caused it."""
    if not hasattr(sys, "ps1"):  # not at Python's prompt
        cause: BaseException | None = error
        while cause is not None and not isinstance(cause, KeyboardInterrupt):
            cause = cause.__cause__  # for example of a RuntimeError while a class was made
        if cause is not None:
            leave()
        errors = sys.modules.get("makemore.errors")  # imported by the one who raises a UserError
        if errors is not None and isinstance(error, errors.UserError):
            leave(BAD_INPUT, f"{_place_in_script(error)}{error}")
    sys.__excepthook__(kind, error, error.__traceback__)


def _place_in_script(error: BaseException) -> str:
    """Return file and line of the script, where it made the call that failed."""
    place = ""
    step = error.__traceback__
    while step is not None:
        if step.tb_frame.f_globals.get("__name__") == "__main__":
            place = f"{step.tb_frame.f_code.co_filename}, line {step.tb_lineno}: "
        step = step.tb_next
    return place


def _is_imported_by_script() -> bool:
    """Return whether the main program itself imports this module, not one of its imports."""
    frame = sys._getframe(1).f_back
    while frame is not None and frame.f_code.co_filename.startswith("<frozen importlib"):
        frame = frame.f_back
    return frame is not None and frame.f_globals.get("__name__") == "__main__"


if sys.excepthook is sys.__excepthook__ and _is_imported_by_script():
    sys.excepthook = _report
