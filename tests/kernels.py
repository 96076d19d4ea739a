"""Notebooks for tests, executed in a real Jupyter kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.conftest import ROOT

nbformat = pytest.importorskip("nbformat", reason="nbclient is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")


def make_notebook(*cells: str) -> Any:
    """Return a notebook with these code cells."""
    return nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])


def execute(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Run all cells in a new kernel of this interpreter, with a folder as the working directory."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JUPYTER_DATA_DIR", str(folder / ".jupyter"))
    monkeypatch.setenv("IPYTHONDIR", str(folder / ".ipython"))
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=200, resources=resources).execute()
    return notebook


def printed(cell: Any, stream: str = "stdout") -> str:
    """Return the text that a cell printed."""
    outputs = [output for output in cell.outputs if output.output_type == "stream"]
    return "".join(output.text for output in outputs if output.name == stream)
