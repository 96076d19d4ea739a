"""The notebook: it runs from top to bottom, and its golden numbers are the committed ones."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT
from tests.kernels import execute, nbformat, printed

NOTEBOOK = ROOT / "experiments" / "from_the_lecture.ipynb"
LECTURE = os.environ.get("MAKEMORE_LECTURE_NAMES") or ROOT / "../shared/data/lecture/names.txt"


def golden(notebook: Any) -> list[str]:
    """Return what the cells print that are the same on every machine."""
    return [printed(c) for c in notebook.cells if "golden" in c.metadata.get("tags", [])]


@pytest.mark.slow
def test_notebook_runs_with_the_committed_numbers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    committed = nbformat.read(NOTEBOOK, 4)
    if Path(LECTURE).is_file():
        monkeypatch.setenv("MAKEMORE_LECTURE_NAMES", str(Path(LECTURE).resolve()))
    ran = execute(nbformat.read(NOTEBOOK, 4), tmp_path, monkeypatch)

    assert len(golden(committed)) == 10
    assert golden(ran) == golden(committed)
    assert (tmp_path / "mlruns/reports/from-the-lecture.html").is_file()
    if Path(LECTURE).is_file():
        assert any("numbers of the lecture's file are right" in printed(c) for c in code(ran))


def code(notebook: Any) -> list[Any]:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def test_committed_notebook_is_complete_and_anonymous() -> None:
    text = NOTEBOOK.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, 4)

    assert [cell.execution_count for cell in code(notebook)] == list(
        range(1, len(code(notebook)) + 1)
    )
    assert all(cell.outputs for cell in code(notebook) if "print(" in cell.source)
    # No absolute paths, no times, no versions of the machine.
    source_free = re.sub(r'"image/png": "[^"]*"', "", text)
    assert re.findall(r"/(?:home|tmp|root|usr|Users|work)/[\w.]+", source_free) == []
    assert "iopub" not in text and notebook.metadata.language_info == {"name": "python"}
    assert "Traceback" not in text and "Warning" not in text
