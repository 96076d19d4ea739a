"""The folder mlruns/ and the files in it."""

from __future__ import annotations

from pathlib import Path

from makemore.errors import UserError

ROOT = Path(__file__).parents[3]  # the project's folder, or site-packages
MLRUNS = Path("mlruns")


def report_path(study: str) -> Path:
    """Return the path of a study's report; its MLflow run has a copy among its artifacts."""
    return MLRUNS / "reports" / f"{study}.html"


def check_folders(study: str) -> None:
    """Refuse files where a study needs folders, before anything is created.

    Raises:
        UserError: mlruns/ or a folder in it exists and is not a folder.
    """
    inside = ("locks", "optuna", "outbox", f"outbox/{study}", "reports", "artifacts")
    for folder in (MLRUNS, *(MLRUNS / name for name in inside)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file, but must be a folder; move the file away.")
