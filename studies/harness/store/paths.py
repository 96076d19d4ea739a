"""The folder mlruns/ and the files in it."""

from __future__ import annotations

import os
from pathlib import Path

from makemore.errors import UserError

ROOT = Path(__file__).parents[3]  # the project's folder, or site-packages
MLRUNS = Path("mlruns")


def report_path(study: str) -> Path:
    """Return the path of a study's report; its MLflow run has a copy among its artifacts."""
    return MLRUNS / "reports" / f"{study}.html"


def check_folders(study: str) -> None:
    """Refuse folders that cannot hold a study, before anything is created.

    Raises:
        UserError: mlruns/ or a folder in it exists and is not a folder, or the path is not UTF-8.
    """
    check_utf8(MLRUNS.absolute())
    inside = ("locks", "optuna", "outbox", f"outbox/{study}", "reports", "artifacts")
    for folder in (MLRUNS, *(MLRUNS / name for name in inside)):
        if folder.exists() and not folder.is_dir():
            raise UserError(f"{folder}: is a file, but must be a folder; move the file away.")


def check_utf8(path: Path) -> None:
    """Refuse a path that is not UTF-8 text: databases cannot store it.

    Raises:
        UserError: the path is not UTF-8 text.
    """
    raw = os.fsencode(path)
    try:
        raw.decode("utf-8")
    except UnicodeDecodeError:
        shown = raw.decode("utf-8", errors="backslashreplace")
        raise UserError(
            f"{shown}: the path is not UTF-8 text; rename the folder, or work in another one."
        ) from None
