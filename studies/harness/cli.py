"""What the scripts share: flags from a dataclass, and one sentence for bad input."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

Args = TypeVar("Args")


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line and exit with what `run` returns; a ValueError becomes one sentence and exit code 2."""
    args = tyro.cli(args_type)
    try:
        sys.exit(run(args))
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
