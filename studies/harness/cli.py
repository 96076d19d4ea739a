"""What the scripts share: flags from a dataclass, and one sentence for what a user can mend."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

from makemore.cli import plain_errors

Args = TypeVar("Args")


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line and exit with what `run` returns, or as `plain_errors` says."""
    with plain_errors():
        args = tyro.cli(args_type)
        sys.exit(run(args))
