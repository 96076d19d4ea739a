"""User errors, messages of one line, and failed writes."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from makemore.errors import UserError, one_line, writing


def test_user_error_is_a_value_error() -> None:
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (ValueError("one\ntwo"), "one"),
        (ValueError("\n  one  \ntwo"), "one"),
        (KeyError(), "KeyError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("x" * 300), "x" * 200),
    ],
)
def test_message_is_one_line(error: Exception, expected: str) -> None:
    assert one_line(error).strip() == expected


def test_message_is_cut_to_the_limit() -> None:
    assert one_line(ValueError("abcdef"), limit=3) == "abc"


def test_failed_write_names_path_and_flag(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "model"

    with pytest.raises(UserError) as caught, writing(path, "--out"):
        path.write_text("x")

    assert str(caught.value) == (
        f"{path}: cannot be written (No such file or directory); give --out another path."
    )


def test_write_error_without_a_reason_gives_its_message() -> None:
    with pytest.raises(UserError, match=r"x: cannot be written \(too long\); give -o"):
        with writing("x", "-o"):
            raise OSError("too long\nand more")


def test_other_errors_pass_through_a_write() -> None:
    with writing("x", "--out"):
        pass
    with pytest.raises(ZeroDivisionError), writing("x", "--out"):
        raise ZeroDivisionError
    # A full disk fails the write too.
    with pytest.raises(UserError, match="No space left on device"), writing("x", "--out"):
        raise OSError(errno.ENOSPC, "No space left on device")
