"""Command lines: flags from a dataclass, and errors as one sentence with an exit code."""

from __future__ import annotations

from makemore.interrupt import BAD_INPUT, INTERRUPTED, leave

import errno
import inspect
import os
import signal
import sys
import threading
import typing
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import MISSING, Field, fields
from types import FrameType
from typing import Annotated, Any, NoReturn, TypeVar

from cyclopts import App, CycloptsError, Group, Parameter, Token
from cyclopts.config import Env
from cyclopts.exceptions import MissingArgumentError, UnusedCliTokensError
from docstring_parser import parse_from_object

from makemore.errors import UserError
from makemore.output import drop_lost_output

# Exit codes.
FAILED = 1

STORAGE_ERRORS = {
    errno.ENOSPC: "make room and run the same command again",
    errno.EDQUOT: "make room and run the same command again",
    errno.EFBIG: "raise the limit on file sizes (ulimit -f) and run the same command again",
    errno.EROFS: "make it writable and run the same command again",
    errno.EACCES: "make it writable and run the same command again",
}

# An environment variable sets the default of a flag: MAKEMORE_STEPS=100 is --steps 100.
ENVIRONMENT = "MAKEMORE_"

# A boolean flag that is off by default, without a --no- form.
SWITCH = Parameter(negative=(), show_default=False)

KEYWORD_ONLY = inspect.Parameter.KEYWORD_ONLY
POSITIONAL_OR_KEYWORD = inspect.Parameter.POSITIONAL_OR_KEYWORD
Args = TypeVar("Args")


def parse_args(args_type: type[Args], argv: Sequence[str] | None = None, prog: str = "") -> Args:
    """Parse a command line into a dataclass: a flag for each field, its docstring as help.

    Fields before `KW_ONLY` are also positional arguments. A subclass that only changes the default
    of a field keeps the field's help and group. A flag that is not given takes its value from the
    environment variable MAKEMORE_FLAG, if that is set.

    Args:
        args_type: the dataclass.
        argv: the arguments. Default: those of this process.
        prog: the program in the usage line. Default: python and the path of the script.

    Raises:
        UserError: a flag is unknown, an argument is missing, a value has the wrong type, or the
            working directory was removed.
        SystemExit: after --help, with code 0.
    """
    argv = sys.argv[1:] if argv is None else argv
    parameters = _parameters(args_type)
    app = _make_app(parameters, args_type.__doc__, prog)

    def build(*values: Any, **flags: Any) -> Args:
        return args_type(*values, **flags)

    build.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    app.default(build)
    try:
        args = app(argv, exit_on_error=False, print_error=False)
    except UnusedCliTokensError as error:
        words = " ".join(error.unused_tokens or [])
        raise UserError(f"unexpected argument {words}; see --help.") from None
    except MissingArgumentError as error:
        raise UserError(_missing(error, parameters)) from None
    except CycloptsError as error:
        raise UserError(" ".join(str(error).split())) from None
    if args is None:  # cyclopts printed the help
        sys.exit(0)
    return args


def _make_app(parameters: list[inspect.Parameter], text: str | None, prog: str) -> App:
    """Return a cyclopts app with this project's help page and usage line."""
    try:
        prog = prog or f"python {os.path.relpath(sys.argv[0])}"
    except FileNotFoundError:
        raise UserError(
            "the working directory was removed; change to a folder that exists."
        ) from None
    positional = [p for p in parameters if p.kind is POSITIONAL_OR_KEYWORD]
    required = [p.name.upper() for p in positional if p.default is p.empty]
    optional = [f"[{p.name.upper()}]" for p in positional if p.default is not p.empty]
    return App(
        help=text,
        usage=" ".join(["Usage:", prog, *required, *optional, "[OPTIONS]\n"]),
        help_flags=("--help", "-h"),
        version_flags=(),
        group_parameters=Group("Options", sort_key=1),
        group_commands=Group("Help", sort_key=99),
        config=Env(ENVIRONMENT, command=False),
        default_parameter=Parameter(show_env_var=False),
        result_action="return_value",
    )


def _missing(error: MissingArgumentError, parameters: list[inspect.Parameter]) -> str:
    """Return the sentence for a positional argument or for a flag without its value."""
    required = {p.name for p in parameters if p.default is p.empty}
    name = error.argument.field_info.name if error.argument else ""
    if name in required:
        return f"{name.upper()} is missing; see --help."
    return " ".join(str(error).split())


def _parameters(args_type: Any) -> list[inspect.Parameter]:
    """Return one parameter for each field of a dataclass, positional ones first.

    Each parameter has the field's help and cyclopts' metadata in its annotation.
    """
    metadata = _metadata(args_type)
    hints = typing.get_type_hints(args_type)
    return [
        inspect.Parameter(
            field.name,
            KEYWORD_ONLY if field.kw_only else POSITIONAL_OR_KEYWORD,
            default=_default(field),
            annotation=Annotated[
                hints[field.name],
                *metadata.get(field.name, (Parameter(),)),
                Parameter(converter=CONVERTERS.get(hints[field.name])),
            ],
        )
        for field in sorted(fields(args_type), key=lambda field: bool(field.kw_only))
    ]


def _to_integer(wanted: Any, tokens: Sequence[Token]) -> int:
    """Return the value of a flag; cyclopts itself would turn 6.5 into 6.

    Raises:
        ValueError: the value is not an integer.
    """
    text = tokens[0].value
    with suppress(ValueError):
        return int(text)
    with suppress(ValueError):
        if (number := float(text)).is_integer():  # such as 1e4
            return int(number)
    raise ValueError(f"{text!r} is not an integer")


def _to_optional_integer(wanted: Any, tokens: Sequence[Token]) -> int | None:
    return None if tokens[0].value == "None" else _to_integer(wanted, tokens)


CONVERTERS = {int: _to_integer, int | None: _to_optional_integer}  # by the type of a field


def _default(field: Field[Any]) -> Any:
    if field.default_factory is not MISSING:
        return field.default_factory()
    return inspect.Parameter.empty if field.default is MISSING else field.default


def _metadata(args_type: Any) -> dict[str, tuple[Any, ...]]:
    """Return the `Annotated` metadata and the help of each field, base classes first.

    Later metadata wins, so a subclass can change a default without repeating the rest.
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
    return metadata


@contextmanager
def plain_errors() -> Iterator[None]:
    """End the program with one sentence on stderr for errors that its user can fix.

    A UserError exits with 2, a full or read-only disk with 1, Ctrl-C with 130. Every other
    exception is a bug and keeps its traceback. Output that cannot be written is dropped.
    """
    drop_lost_output()
    try:
        with _leave_imports():
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


@contextmanager
def _leave_imports() -> Iterator[None]:
    """Let Ctrl-C end the process at once while an import runs in the block.

    A KeyboardInterrupt in the import of a native library may abort the process.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        place = frame
        while place is not None:
            if place.f_code.co_filename.startswith("<frozen importlib"):
                leave()
            place = place.f_back
        signal.default_int_handler(number, frame)

    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if signal.getsignal(signal.SIGINT) is interrupt:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def stop(sentence: str, code: int) -> NoReturn:
    """End the program with a sentence on stderr."""
    print(sentence, file=sys.stderr, flush=True)
    sys.exit(code)
