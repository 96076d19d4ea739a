"""What the project's command lines share: how they end when something is wrong."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes; 130 is the shell's for Ctrl-C


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one sentence on stderr, instead of a traceback, for what its user can cause.

    A ValueError (a bad path, key, value or flag) exits with 2, Ctrl-C with 130. Anything else is a bug and goes on.
    """
    try:
        yield
    except ValueError as error:
        stop(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        stop("Interrupted; what was not saved is lost.", INTERRUPTED)


def stop(sentence: str, code: int) -> NoReturn:
    """End the program with a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
