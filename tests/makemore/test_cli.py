"""Command lines: parsing into dataclasses, messages, help pages and exit codes."""

from __future__ import annotations

import errno
import re
from dataclasses import KW_ONLY, dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import pytest
from cyclopts import Group, Parameter

from makemore.cli import SWITCH, parse_args, plain_errors, stop
from makemore.errors import UserError

BUDGET = Group("Budget", sort_key=2)


@dataclass
class Args:
    """Bake some bread."""

    recipe: Path
    """File of the recipe."""
    oven: str = "left"
    """Oven to use."""
    _: KW_ONLY
    n_loaves: Annotated[int, Parameter(group=BUDGET)] = 3
    """Number of loaves."""
    heat: float | None = None
    """Temperature in degrees."""
    grain: Literal["rye", "wheat"] = "rye"
    """Kind of flour."""
    crust: bool = True
    """Bake a crust."""
    json: Annotated[bool, SWITCH] = False
    """Print JSON."""
    extras: list[str] = field(default_factory=list)
    """More ingredients."""


@dataclass
class ManyLoaves(Args):
    """Bake a lot of bread."""

    n_loaves: int = 100


@dataclass
class NoArguments:
    """Do nothing."""


def help_page(args_type: type, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        parse_args(args_type, ["--help"], prog="bake")
    assert stopped.value.code == 0
    return capsys.readouterr().out


def box(page: str, title: str) -> str:
    """Return the lines of one box of a help page."""
    found = re.search(rf"╭─ {title} .*?╰", page, re.DOTALL)
    assert found is not None, page
    return found[0]


# --- values


def test_defaults_fill_the_other_fields() -> None:
    assert parse_args(Args, ["rye.txt"]) == Args(Path("rye.txt"))


def test_flags_have_types_of_their_fields() -> None:
    argv = "rye.txt --n-loaves 5 --heat 230 --grain wheat --no-crust --json --extras salt".split()

    expected = Args(
        Path("rye.txt"),
        n_loaves=5,
        heat=230.0,
        grain="wheat",
        crust=False,
        json=True,
        extras=["salt"],
    )
    assert parse_args(Args, argv) == expected


def test_flags_accept_underscores_and_equals_signs() -> None:
    assert parse_args(Args, ["r", "--n_loaves=5"]) == parse_args(Args, ["r", "--n-loaves", "5"])


def test_fields_before_kw_only_are_positional() -> None:
    expected = Args(Path("rye.txt"), "right", heat=1.0)

    assert parse_args(Args, ["rye.txt", "right", "--heat", "1"]) == expected
    assert parse_args(Args, ["--heat", "1", "rye.txt", "right"]) == expected
    assert parse_args(Args, ["--oven", "right", "--recipe", "rye.txt", "--heat", "1"]) == expected


def test_arguments_of_the_process_are_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["bake.py", "rye.txt", "--json"])

    assert parse_args(Args) == Args(Path("rye.txt"), json=True)


def test_default_factory_makes_a_new_value() -> None:
    one, two = (parse_args(Args, ["rye.txt"]) for _ in range(2))

    assert one.extras == two.extras == [] and one.extras is not two.extras


def test_dataclass_without_fields_needs_no_arguments() -> None:
    assert parse_args(NoArguments, []) == NoArguments()


# --- messages


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["r", "--n-loafs", "4"], "Unknown option: --n-loafs. Did you mean --n-loaves?"),
        (["r", "--n-loaves", "many"], "Invalid value for --n-loaves: 'many' is not an integer"),
        (["r", "--n-loaves", "6.5"], "Invalid value for --n-loaves: '6.5' is not an integer"),
        (["r", "--grain", "oat"], 'Invalid value "oat" for --grain. Choose from: "rye", "wheat".'),
        (["r", "--n-loaves"], "Parameter --n-loaves requires an argument."),
        (["r", "--no-json"], "Unknown option: --no-json"),
        ([], "RECIPE is missing; see --help."),
        (["--n-loaves", "4"], "RECIPE is missing; see --help."),
        (["r", "left", "third"], "unexpected argument third; see --help."),
        (["r", "left", "third", "fourth"], "unexpected argument third fourth; see --help."),
    ],
)
def test_bad_command_line_is_one_sentence(argv: list[str], message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_args(Args, argv)

    assert str(caught.value).startswith(message) and "\n" not in str(caught.value)


# --- help


@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_help_exits_with_0(flag: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse_args(Args, [flag], prog="bake")

    assert stopped.value.code == 0
    output = capsys.readouterr()
    assert output.out.startswith("Usage: bake RECIPE [OVEN] [OPTIONS]\n") and output.err == ""


def test_help_has_each_field_in_its_group(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(Args, capsys)

    assert "Bake some bread." in page
    assert "Number of loaves. [default: 3]" in box(page, "Budget")
    for text in ("File of the recipe.", "Temperature in degrees.", "Bake a crust."):
        assert text in box(page, "Options")
    # A switch is off by default, which its help does not need to say.
    assert "--json" in page and "--no-json" not in page and "Print JSON.  " in page


def test_new_default_keeps_inherited_group_and_help(capsys: pytest.CaptureFixture[str]) -> None:
    page = help_page(ManyLoaves, capsys)

    assert "Bake a lot of bread." in page
    assert "Number of loaves. [default: 100]" in box(page, "Budget")
    assert parse_args(ManyLoaves, ["r"]).n_loaves == 100


def test_usage_names_the_running_script(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", [str(Path("bakery", "bake.py").absolute()), "--help"])

    with pytest.raises(SystemExit):
        parse_args(Args)

    assert capsys.readouterr().out.startswith("Usage: python bakery/bake.py RECIPE")


# --- exit codes


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (UserError("no oven; buy one."), 2, "no oven; buy one."),
        (
            OSError(errno.ENOSPC, "No space left on device", "a.db"),
            1,
            "a.db: No space left on device. Nothing stored is lost; "
            "make room and run the same command again.",
        ),
        (
            OSError(errno.EFBIG, "File too large", "a.db"),
            1,
            "a.db: File too large. Nothing stored is lost; "
            "raise the limit on file sizes (ulimit -f) and run the same command again.",
        ),
        (
            OSError(errno.EROFS, "Read-only file system"),
            1,
            "the folder mlruns: Read-only file system. Nothing stored is lost; "
            "make it writable and run the same command again.",
        ),
        (KeyboardInterrupt(), 130, "Interrupted."),
    ],
)
def test_error_of_the_user_ends_with_its_code(
    error: BaseException, code: int, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped, plain_errors():
        raise error

    assert stopped.value.code == code
    output = capsys.readouterr()
    assert (output.out, output.err) == ("", f"{message}\n")


@pytest.mark.parametrize("error", [ValueError("a bug"), OSError(errno.EIO, "I/O error")])
def test_other_errors_keep_their_traceback(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, plain_errors():
        raise error

    assert caught.value is error


def test_stop_prints_a_sentence_and_exits(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stopped:
        stop("The oven failed.", 1)

    assert stopped.value.code == 1 and capsys.readouterr().err == "The oven failed.\n"


def test_environment_sets_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEMORE_N_LOAVES", "7")

    assert parse_args(Args, ["bread.txt"]).n_loaves == 7
    # The command line wins.
    assert parse_args(Args, ["bread.txt", "--n-loaves", "9"]).n_loaves == 9
