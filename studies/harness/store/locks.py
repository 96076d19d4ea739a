"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]

from studies.harness.store.paths import MLRUNS


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Hold a lock between the processes that share this mlruns/."""
    folder = MLRUNS / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield
