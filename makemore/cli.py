"""What the project's command lines share: how they end when something is wrong."""

from __future__ import annotations

import errno
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes; 130 is the shell's for Ctrl-C

STORAGE_ERRORS = {
    errno.ENOSPC: "make room and give the same command again",
    errno.EDQUOT: "make room and give the same command again",
    errno.EROFS: "make it writable and give the same command again",
    errno.EACCES: "make it writable and give the same command again",
}


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one sentence on stderr, instead of a traceback, for what its user can cause.

    A ValueError (a bad path, key, value or flag) exits with 2, a disk that is full or may not be written with 1, Ctrl-C
    with 130. Anything else is a bug and goes on.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        where = error.filename or "the folder mlruns"
        stop(f"{where}: {error.strerror}. What was stored is whole; {STORAGE_ERRORS[error.errno]}.", FAILED)
    except ValueError as error:
        stop(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        stop("Interrupted.", INTERRUPTED)


def stop(sentence: str, code: int) -> NoReturn:
    """End the program with a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
