"""Study names and masked passwords."""

from __future__ import annotations

import pytest

from makemore.errors import UserError
from studies.harness.store.text import check_study_name, reason, without_password


@pytest.mark.parametrize("name", ["a", "mlp", "mlp-2.1_b", "7", "x" * 100])
def test_plain_name_is_returned(name: str) -> None:
    assert check_study_name(name) == name


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 101, "straße", ".hidden", "a b", "a\n"])
def test_name_unfit_for_a_file_is_refused(name: str) -> None:
    with pytest.raises(UserError, match="cannot be used; take 1 to 100 of the characters"):
        check_study_name(name)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://me:secret@host:5432/x", "postgresql://me:***@host:5432/x"),
        ("postgresql://me:se@cr/et@host/x", "postgresql://me:***@host/x"),
        ("http://host/x?token=abc&a=1", "http://host/x?token=***&a=1"),
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
    ],
)
def test_only_passwords_and_tokens_are_masked(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_reason_is_one_line_without_password() -> None:
    error = RuntimeError("cannot reach http://me:secret@host\nbecause of this\nand that")

    assert reason(error) == "cannot reach http://me:***@host"
    assert reason(error, limit=6) == "cannot"
