"""What the scripts share: flags from a dataclass, and one sentence for what a user can mend."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Container
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

import tyro

from makemore.cli import plain_errors

Args = TypeVar("Args")


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line and exit with what `run` returns, or as `plain_errors` says."""
    with plain_errors():
        args = tyro.cli(args_type)
        atexit.register(gc.freeze)  # or the interpreter's end looks through all that torch and mlflow made: a second
        sys.exit(run(args))


def given_flags(args: Any, *, but: Container[str]) -> list[str]:
    """The flags that give these arguments again: those of fields that differ from their defaults.

    Args:
        args: an instance of a script's dataclass, each of whose fields has a default.
        but: names of fields to leave out.
    """
    usual, flags = type(args)(), []
    for field in fields(args):
        value, flag = getattr(args, field.name), field.name.replace("_", "-")
        if field.name not in but and value != getattr(usual, field.name):
            switch = {True: [f"--{flag}"], False: [f"--no-{flag}"]}
            flags += switch[value] if isinstance(value, bool) else [f"--{flag}", str(value)]
    return flags
