"""Command lines: flags from a dataclass, and how a program ends when something is wrong."""

from __future__ import annotations

import errno
import inspect
import os
import sys
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, fields
from typing import Annotated, Any, NoReturn, TypeVar

from cyclopts import App, CycloptsError, Group, Parameter
from cyclopts.exceptions import UnusedCliTokensError
from docstring_parser import parse_from_object

from makemore.errors import UserError

BAD_INPUT, FAILED, INTERRUPTED = 2, 1, 130  # exit codes; 130 is the shell's for Ctrl-C

STORAGE_ERRORS = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EROFS: "make it writable and run the same command again",
    errno.EACCES: "make it writable and run the same command again",
}

# Parameters of cyclopts for the flags of all scripts.
SWITCH = Parameter(negative=(), show_default=False)  # a boolean that is off by default
KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
POSITIONAL_OR_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD
Args = TypeVar("Args")


def parse_args(args_type: type[Args], argv: Sequence[str] | None = None, prog: str = "") -> Args:
    """Parse a command line into a dataclass: a flag for each field, its docstring as help.

    Fields before `KW_ONLY` are also positional arguments. A field that only changes an inherited
    default keeps the help and the group of the inherited one.

    Args:
        args_type: the dataclass.
        argv: the arguments; those of this process if not given.
        prog: how the program is called, for the usage line; the script's path if not given.

    Raises:
        UserError: an unknown flag, a missing argument, or a value of the wrong type.
        SystemExit: after --help.
    """
    argv = sys.argv[1:] if argv is None else argv
    prog = prog or f"python {os.path.relpath(sys.argv[0])}"
    parameters = _parameters(args_type)
    positional = [p for p in parameters if p.kind is POSITIONAL_OR_KEYWORD]
    required = [p.name.upper() for p in positional if p.default is p.empty]
    if required and not argv:
        raise UserError(f"{required[0]} is missing; see --help.")
    optional = [f"[{p.name.upper()}]" for p in positional if p.default is not p.empty]
    app = App(
        help=args_type.__doc__,
        usage=" ".join(["Usage:", prog, *required, *optional, "[OPTIONS]\n"]),
        help_flags=("--help", "-h"),
        version_flags=(),
        group_parameters=Group("Options", sort_key=1),
        group_commands=Group("Help", sort_key=99),
        result_action="return_value",
    )

    def build(*values: Any, **flags: Any) -> Args:
        return args_type(*values, **flags)

    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.default(build)
    try:
        args = app(argv, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or [])
        raise UserError(f"unexpected argument {words}; see --help.") from None
    except CycloptsError as error:
        raise UserError(" ".join(str(error).split())) from None
    if args is None:  # the help was printed
        sys.exit(0)
    return args


def _parameters(args_type: Any) -> list[inspect.Parameter]:
    """Return one parameter for each field of a dataclass, with its help and cyclopts' metadata.

    The metadata and the docstring come from the class that declares them last, so a subclass can
    change a default without repeating them.
    """
    metadata: dict[str, tuple[Any, ...]] = {}
    for base in reversed(args_type.__mro__[:-1]):
        texts = {text.arg_name: text.description for text in parse_from_object(base).params}
        hints = typing.get_type_hints(base, include_extras=True)
        for name in base.__dict__.get("__annotations__", {}):
            extras = getattr(hints[name], "__metadata__", ())
            if name in texts:
                extras += (Parameter(help=texts[name]),)
            if extras:
                metadata[name] = metadata.get(name, ()) + extras

    hints = typing.get_type_hints(args_type)
    parameters = []
    for field in sorted(fields(args_type), key=lambda field: bool(field.kw_only)):
        default = field.default
        if field.default_factory is not MISSING:
            default = field.default_factory()
        parameters.append(
            inspect.Parameter(
                field.name,
                KEYWORD_ONLY if field.kw_only else POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if default is MISSING else default,
                annotation=Annotated[hints[field.name], *metadata.get(field.name, (Parameter(),))],
            )
        )
    return parameters


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one sentence on stderr for what its user can cause.

    A UserError exits with 2, a full or read-only disk with 1, Ctrl-C with 130. Every other
    exception is a bug and passes through with its traceback.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        where = error.filename or "the folder mlruns"
        advice = STORAGE_ERRORS[error.errno]
        stop(f"{where}: {error.strerror}. Nothing stored is lost; {advice}.", FAILED)
    except UserError as error:
        stop(str(error), BAD_INPUT)
    except KeyboardInterrupt:
        stop("Interrupted.", INTERRUPTED)


def stop(sentence: str, code: int) -> NoReturn:
    """End the program with a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
