"""A study in a real Jupyter kernel: its progress, its table, and an interrupted cell."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.kernels import execute, make_notebook, printed
from tests.studies.harness.api.programs import INTERRUPTED, SETUP

pytestmark = pytest.mark.slow


def test_progress_is_one_output_of_the_cell(
    names: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    call = 'study = search(space, BASE, name="cell", **{**SMALL, "trials": 40})'
    notebook = make_notebook(SETUP + call, "study")
    first, second = execute(notebook, workdir, monkeypatch).cells

    (bar,) = [output for output in first.outputs if output.output_type == "display_data"]
    assert bar.data["text/plain"].startswith("40/40 trials, ")
    assert '<progress value="40" max="40">' in bar.data["text/html"]
    assert printed(first) == "" and "Warning" not in printed(first, "stderr")
    assert "<table>" in second.outputs[0].data["text/html"]


def test_interrupted_cell_returns_the_study(
    names: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = make_notebook(f"{SETUP}SIGNALS = 1\n{INTERRUPTED}", "print(len(study.trials) > 0)")
    first, second = execute(notebook, workdir, monkeypatch).cells

    assert printed(first).splitlines() == ["returned True True", "True"]
    assert printed(second) == "True\n"
