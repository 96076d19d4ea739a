"""Output that cannot be written: closed pipes, closed streams and a full disk."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.studies.conftest import Launcher, assert_whole

FLAGS = "--names names.txt --device cpu --repeats 0 --trials 2 --steps 300"


def shell(command: str) -> subprocess.CompletedProcess[str]:
    """Run a command line in bash; $PY is this Python, $ROOT the project's folder."""
    return subprocess.run(
        ["bash", "-c", f"set -o pipefail; {command}"],
        env={**os.environ, "PY": sys.executable, "ROOT": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=120,
    )


@pytest.mark.parametrize(
    "redirection",
    [
        "2>&1 | head -1",
        ">/dev/full",
        pytest.param(">/dev/full 2>&1", marks=pytest.mark.slow),
        ">&- 2>&-",
        pytest.param("<&- 2>&-", marks=pytest.mark.slow),
    ],
)
def test_study_ends_without_its_output(names: Path, redirection: str) -> None:
    ran = shell(f"$PY $ROOT/studies/mlp.py {FLAGS} {redirection}")

    assert ran.returncode == 0, ran.stderr
    assert "Traceback" not in ran.stdout + ran.stderr
    assert_whole("mlp", 2)


def test_lost_output_is_reported(launch: Launcher) -> None:
    launch(trials=1)

    ran = shell("$PY $ROOT/studies/compare.py small >/dev/full")

    assert ran.stderr == "standard output: No space left on device; some output is lost.\n"


@pytest.mark.parametrize(
    "command",
    [
        "$PY $ROOT/studies/mlp.py --help | head -1",
        "$PY $ROOT/studies/mlp.py --help | true",
        "$PY $ROOT/studies/mlp.py --help >&-",
        "$PY $ROOT/studies/compare.py absent 2>&1 | true",
    ],
)
def test_short_output_to_a_closed_stream_is_quiet(workdir: Path, command: str) -> None:
    ran = shell(command)

    assert ran.returncode == (2 if "absent" in command else 0)
    assert ran.stderr == ""


def test_single_training_survives_a_closed_pipe(names: Path) -> None:
    flags = "--names names.txt --device cpu --max-steps 4000 --eval-interval 20 --out model"

    ran = shell(f"$PY -m makemore.trainer {flags} 2>&1 | head -1")

    assert ran.returncode == 0
    assert len(ran.stdout.splitlines()) == 1 and ran.stderr == ""
    assert Path("model").exists()
