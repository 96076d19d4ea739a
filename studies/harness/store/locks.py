"""Locks between processes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from studies.harness.store.paths import MLRUNS

if TYPE_CHECKING:
    from optuna.storages import BaseStorage


def backend_of(storage: BaseStorage | None) -> Any:
    """Return the journal or database of a storage; Optuna puts a cache in front of a database."""
    return getattr(storage, "_backend", storage)


@contextmanager
def exclusive(name: str, storage: BaseStorage | None = None) -> Iterator[None]:
    """Let only one process at a time run the block, among those that share this mlruns/.

    Args:
        name: name of the lock; blocks with different names do not wait for each other.
        storage: if it is in PostgreSQL, processes that share this database count too, also those
            with another mlruns/ on another machine.
    """
    folder = MLRUNS / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    backend = backend_of(storage)
    database_lock = backend.locked(name) if hasattr(backend, "locked") else nullcontext()
    with FileLock(folder / f"{name}.lock"), database_lock:
        yield
