"""Opens MLflow's SQLite database: creates it whole, checks it, and sets its modes."""

from __future__ import annotations

import functools
import glob
import os
import sqlite3
import tempfile
from contextlib import closing
from pathlib import Path
from typing import Any

from studies.harness.store.locks import exclusive
from studies.harness.tracking.connection.moved import rebase


def connect_sqlite(uri: str) -> Any:
    """Return an MlflowClient of a database, which is created if it is missing."""
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive("mlflow"):  # processes that create the database together crash each other
        check_room(path.parent)
        if path.exists():
            check_database(path)
        else:
            _create_database(path)
        # In WAL mode, NORMAL keeps the database consistent; a power cut may undo the last commits.
        _set_synchronous(path.absolute(), "NORMAL")
        # MLflow retries a database that it cannot open for 100 s; sqlite3 fails at once. While this
        # connection is open, MLflow needs no further room on the disk to open the database.
        with closing(sqlite3.connect(path)) as database:
            # Persists in the file, and halves the time of each call.
            database.execute("PRAGMA journal_mode=WAL")
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            rebase(database, path.absolute().parent)
    return client


def check_database(path: Path) -> None:
    """Raise sqlite3's error if a file is not a database; SQLAlchemy tries again for 100 s first."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")


def check_room(folder: Path) -> None:
    """Write as much as SQLite needs to open a database; on a full disk SQLite gives no reason.

    Raises:
        OSError: the folder cannot be written; with the system's reason.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(64 * 1024))


def _create_database(path: Path) -> None:
    """Create MLflow's tables in a temporary file, and move it to `path` when it is complete.

    A launch that is killed in between leaves no partial database, and the disk is waited for once
    instead of hundreds of times.
    """
    new = path.with_name(f".{path.name}.new").absolute()
    for left in path.parent.glob(f"{glob.escape(new.name)}*"):  # from a killed launch
        left.unlink()
    new.touch()  # fails at once if no file can be created
    try:
        _create_tables(new)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


def _create_tables(path: Path) -> None:
    """Create the tables of an empty file, as MLflow does.

    MLflow runs about sixty migrations, which takes a second. Their result is the file
    mlflow-VERSION.sql; only a version without such a file runs them.
    """
    import mlflow

    schema = Path(__file__).with_name(f"mlflow-{mlflow.__version__}.sql")
    if not schema.exists():
        _set_synchronous(path, "OFF")
        mlflow.MlflowClient(f"sqlite:///{path}").search_experiments(max_results=1)
        return
    with closing(sqlite3.connect(path)) as database:
        database.executescript(schema.read_text(encoding="utf-8"))


@functools.cache
def _set_synchronous(path: Path, synchronous: str) -> None:
    """Set PRAGMA synchronous, FULL by default, for connections to one SQLite file."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def set_pragma(connection: Any, _: Any) -> None:
        # This is called for every engine, for example Optuna's too.
        if isinstance(connection, sqlite3.Connection):
            if connection.execute("PRAGMA database_list").fetchone()[2] == os.path.realpath(path):
                connection.execute(f"PRAGMA synchronous={synchronous}")

    event.listen(Engine, "connect", set_pragma)
