"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from filelock import FileLock

from studies.harness.store.paths import MLRUNS


@contextmanager
def exclusive(name: str) -> Iterator[None]:
    """Let only one process at a time run the block, among those that share this mlruns/.

    Args:
        name: name of the lock; blocks with different names do not wait for each other.
    """
    folder = MLRUNS / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f"{name}.lock"):
        yield
