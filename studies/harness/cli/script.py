"""Entry point of every script: parse, run, exit; and signals that stop a study."""

from __future__ import annotations

import atexit
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable, Container, Iterator
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from makemore.cli import INTERRUPTED, parse_args, plain_errors
from studies.harness.cli.outages import plain_outages

Args = TypeVar("Args")

USUAL = gc.get_threshold()
# New objects after which Python looks for garbage, until `collect_as_usual`. The imports make a
# million objects and no garbage, and with the default of 700 a fifth of a short run is that look.
START_UP = 100_000


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line, call `run`, and exit with the code that it returns.

    User errors, full disks and Ctrl-C end the script as `plain_errors` describes, and a database or
    server that fails as `plain_outages` does.
    """
    with plain_errors():
        collect_seldom()
        args = parse_args(args_type)
        # Otherwise the interpreter spends a second at exit on the objects of torch and mlflow.
        atexit.register(gc.freeze)
        with plain_outages(args):
            code = run(args)
        sys.exit(code)


def collect_seldom() -> None:
    """Look for garbage seldom, until `collect_as_usual`."""
    gc.set_threshold(START_UP, *USUAL[1:])


def collect_as_usual() -> None:
    """Look for garbage as often as by default, but not among the objects that exist already.

    Does nothing without `collect_seldom`: a program that calls the project keeps its settings.
    """
    if gc.get_threshold()[0] == START_UP:
        gc.freeze()
        gc.set_threshold(*USUAL)


def given_flags(args: Any, *, exclude: Container[str]) -> list[str]:
    """Return the flags that reproduce these arguments: those that differ from their defaults.

    Args:
        args: an instance of a script's dataclass, each of whose fields has a default.
        exclude: names of fields to leave out.
    """
    defaults = type(args)()
    flags = []
    for field in fields(args):
        value = getattr(args, field.name)
        if field.name in exclude or value == getattr(defaults, field.name):
            continue
        flag = field.name.replace("_", "-")
        if value is True:
            flags.append(f"--{flag}")
        elif value is False:
            flags.append(f"--no-{flag}")
        elif isinstance(value, tuple):
            flags += [word for item in value for word in (f"--{flag}", str(item))]
        else:
            flags += [f"--{flag}", str(value)]
    return flags


@contextmanager
def clean_stop(interrupt: Callable[[], None], *, in_script: bool = True) -> Iterator[None]:
    """Call `interrupt` at the first SIGINT or SIGTERM in the block; exit at once at the second.

    Args:
        interrupt: called in the signal handler.
        in_script: the process belongs to the script, which ends after the block. Otherwise only
            SIGINT is caught, and only once: a second one does what it did before the block.
    """
    # Python delivers signals to the main thread only.
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    signums = (signal.SIGINT, signal.SIGTERM) if in_script else (signal.SIGINT,)
    stopped = False

    def stop(number: int, frame: object) -> None:
        nonlocal stopped
        stopped = True
        for signum, handler in zip(signums, before, strict=True):
            again = (lambda *_: os._exit(INTERRUPTED)) if in_script else handler
            signal.signal(signum, again)
        interrupt()

    before = [signal.signal(signum, stop) for signum in signums]
    try:
        yield
    finally:
        for signum, handler in zip(signums, before, strict=True):
            # After a stop only the interpreter's exit is left. It takes a second, and another
            # signal must not make it fail.
            ignored = stopped and in_script
            signal.signal(signum, signal.SIG_IGN if ignored else handler)


@contextmanager
def uninterrupted(*, in_script: bool = False) -> Iterator[None]:
    """Hold back Ctrl-C until the end of the block, where it then takes effect.

    A process that lives on cannot repeat an import of torch, or the start of numba, that was
    broken off. A script ends anyway, so `in_script` changes nothing.
    """
    # Python delivers signals to the main thread only.
    if in_script or threading.current_thread() is not threading.main_thread():
        yield
        return
    held: list[int] = []
    before = signal.signal(signal.SIGINT, lambda number, frame: held.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
    if held:
        signal.raise_signal(signal.SIGINT)
