"""What the scripts share: flags from a dataclass, and one sentence for bad input."""

from __future__ import annotations

import errno
import sys
from collections.abc import Callable
from typing import NoReturn, TypeVar

import tyro

Args = TypeVar("Args")

STORAGE_ERRORS = {
    errno.ENOSPC: "make room and give the same command again",
    errno.EDQUOT: "make room and give the same command again",
    errno.EROFS: "make it writable and give the same command again",
    errno.EACCES: "make it writable and give the same command again",
}


def run_script(args_type: type[Args], run: Callable[[Args], int]) -> NoReturn:
    """Parse the command line and exit with what `run` returns.

    A ValueError is what a user can mend: one sentence, exit code 2. So is a full or read-only disk, with exit code 1.
    """
    args = tyro.cli(args_type)
    try:
        sys.exit(run(args))
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        where = error.filename or "the folder mlruns"
        print(f"{where}: {error.strerror}. What was stored is whole; {STORAGE_ERRORS[error.errno]}.", file=sys.stderr)
        sys.exit(1)
    except ValueError as error:
        print(f"{error}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        sys.exit(130)
