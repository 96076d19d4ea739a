"""A launch: its first lines of output, its early checks, and its JSON object."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from makemore.errors import UserError
from tests.conftest import ROOT

Launcher = Callable[..., int]


def test_first_line_comes_before_slow_imports() -> None:
    # `run_study` prints its first line before it imports anything else.
    program = """
import sys
import studies.harness.search.launch
print([name for name in ("torch", "mlflow", "pandas", "numba", "scipy") if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_launch_announces_its_trials_and_slots(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(trials=3, workers=2) == 0
    assert capsys.readouterr().err.splitlines()[:2] == [
        "Study small: 3 trials of 40 steps.",
        "Training 2 trials at a time on the CPU.",
    ]


def test_bad_flags_are_refused_before_the_first_line(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in ({"study": "a/b"}, {"keep_models": -1}):
        with pytest.raises(UserError):
            launch(**flags)
    assert capsys.readouterr().err == ""
    assert not Path("mlruns/optuna").exists()


def test_json_names_the_report_and_the_slots(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=3, workers=2, repeats=1, prune=False, json=True)
    outcome = json.loads(capsys.readouterr().out)
    assert Path(outcome["report"]).is_file()
    # Three trials and a seed repeat of each.
    assert (outcome["slots"], outcome["trials"], outcome["ended_now"]) == (2, 3, 6)
    # No slot can train for longer than the launch lasted.
    assert outcome["train_s"] <= outcome["slots"] * outcome["wall_s"]
