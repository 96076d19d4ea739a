"""Messages and errors of calls from Python."""

from __future__ import annotations

import os

import pytest

from makemore.errors import Outage, UserError
from studies.harness.api.process import PythonArgs, called_from_python, in_python


@pytest.mark.parametrize(
    ("sentence", "shown"),
    [
        ("--keep-models must be at least 0.", "keep_models must be at least 0."),
        ("give --force to overwrite it, or give --out another path.",
         "give force=True to overwrite it, or give path another path."),
        ("--range lr=1: give LOW:HIGH.", "ranges lr=1: give LOW:HIGH."),
        ("a-b--c and x -- y stay.", "a-b--c and x -- y stay."),
    ],
)  # fmt: skip
def test_messages_name_arguments(sentence: str, shown: str) -> None:
    assert in_python(sentence) == shown


def test_user_error_keeps_its_type_and_its_fields() -> None:
    class Special(UserError):
        reason = "why"

    with pytest.raises(Special, match="^give name another name$") as caught:
        with called_from_python(PythonArgs(study="x")):
            raise Special("give --study another name")
    assert caught.value.reason == "why"


def test_outage_says_how_to_continue() -> None:
    with pytest.raises(Outage, match="MLflow failed: gone. .* make the same call again"):
        with called_from_python(PythonArgs(study="x")):
            raise Outage("gone")


def test_bug_keeps_its_exception() -> None:
    with pytest.raises(ZeroDivisionError):
        with called_from_python(PythonArgs(study="x")):
            print(1 / 0)


def test_environment_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MAKEMORE_TEST_KEPT", "before")
    monkeypatch.delenv("MAKEMORE_TEST_NEW", raising=False)
    with called_from_python(PythonArgs(study="x")):
        os.environ["MAKEMORE_TEST_NEW"] = "1"
        os.environ["MAKEMORE_TEST_KEPT"] = "after"

    assert os.environ["MAKEMORE_TEST_KEPT"] == "before"
    assert "MAKEMORE_TEST_NEW" not in os.environ
