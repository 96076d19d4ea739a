"""The folder mlruns/ and the files in it."""

from __future__ import annotations

from pathlib import Path

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


ROOT = Path(__file__).parents[3]  # the project's folder, or site-packages
MLRUNS = Path("mlruns")


def report_path(study: str) -> Path:
    """Where a study's report stands beside the copy among its run's artifacts."""
    return MLRUNS / "reports" / f"{study}.html"
