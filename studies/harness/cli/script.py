"""Entry point of every script, and the flags that reproduce a dataclass of arguments."""

from __future__ import annotations

import atexit
import gc
import sys
from collections.abc import Callable, Container
from dataclasses import fields
from typing import Any, NoReturn, TypeVar

from makemore.cli import parse_args, plain_errors

Args = TypeVar("Args")


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line, call `run`, and exit with the code it returns.

    User errors, full disks and Ctrl-C end the script as `plain_errors` describes.
    """
    with plain_errors():
        args = parse_args(args_type)
        # Otherwise the interpreter spends a second at exit on the objects of torch and mlflow.
        atexit.register(gc.freeze)
        sys.exit(run(args))


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
        else:
            flags += [f"--{flag}", str(value)]
    return flags
