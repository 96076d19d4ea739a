"""Output that cannot be written is dropped; characters that the encoding lacks are escaped."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

START = "import sys; from makemore.output import drop_lost_output; drop_lost_output();"


def run(program: str, redirection: str = "", **environment: str) -> tuple[int, str, str]:
    """Run a Python program in a shell; returns the exit code, stdout and stderr."""
    ran = subprocess.run(
        ["bash", "-c", f'"$PY" -c "$PROGRAM" {redirection}'],
        cwd=ROOT,
        env={**os.environ, "PY": sys.executable, "PROGRAM": START + program, **environment},
        capture_output=True,
        text=True,
    )
    return ran.returncode, ran.stdout, ran.stderr


def test_usual_output_arrives_in_order() -> None:
    program = "print('one'); print('two', file=sys.stderr); print('three')"
    assert run(program) == (0, "one\nthree\n", "two\n")


@pytest.mark.parametrize("redirection", [">&-", "2>&-", "<&- >&- 2>&-", "| true", "2>&1 | true"])
def test_work_continues_without_output(redirection: str) -> None:
    program = "[print('x' * 9999) for _ in range(99)]; print('y', file=sys.stderr); sys.exit(7)"

    code, _, err = run(program, f"{redirection}; exit ${{PIPESTATUS[0]}}")

    assert code == 7 and err in ("", "y\n")


def test_full_disk_is_reported_once() -> None:
    program = "[print('x' * 9999) for _ in range(99)]"
    sentence = "standard output: No space left on device; some output is lost.\n"
    assert run(program, ">/dev/full") == (0, "", sentence)


def test_next_file_does_not_take_the_place_of_a_closed_stream() -> None:
    program = "import os; sys.exit(os.open(os.devnull, os.O_RDONLY))"

    code, _, _ = run(program, ">&- 2>&-")

    assert code > 2


def test_character_outside_the_encoding_is_escaped() -> None:
    program = "print('caf' + chr(0xe9))"
    assert run(program, PYTHONIOENCODING="ascii") == (0, "caf\\xe9\n", "")
