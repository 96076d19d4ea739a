"""The folder mlruns/ and the files in it."""

from __future__ import annotations

from pathlib import Path

ROOT = Path(__file__).parents[3]  # the project's folder, or site-packages
MLRUNS = Path("mlruns")


def report_path(study: str) -> Path:
    """Return the path of a study's report; its MLflow run has a copy among its artifacts."""
    return MLRUNS / "reports" / f"{study}.html"
