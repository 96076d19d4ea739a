"""Connects to MLflow's tracking store: a server, a database, or the default one in mlruns/.

Functions import mlflow themselves, because its import takes about a second.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS, check_utf8
from studies.harness.store.text import reason, with_psycopg, without_password
from studies.harness.tracking.connection.answers import ServerClient, repeat
from studies.harness.tracking.connection.sqlite import check_database, check_room, connect_sqlite

DEFAULTS = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between the first calls of a server that does not answer
STARTS_WITHIN = 8.0  # seconds; a server that has not answered by then is not called again
CONNECT_TIMEOUT = 4  # seconds
DATABASES = ("sqlite:", "postgresql", "postgres:", "mysql", "mssql")


def set_environment() -> None:
    """Set the environment variables that mlflow reads; those of DEFAULTS only if they are not set.

    `connect` calls it again, because a call from Python restores the environment at its end.
    """
    for name, value in DEFAULTS.items():
        os.environ.setdefault(name, value)
    # mlflow's own retry after a lost answer creates a run twice; `ServerClient` repeats the rest.
    os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"


set_environment()


def default_tracking_uri() -> str:
    """Return the URI of the SQLite database in mlruns/."""
    return f"sqlite:///{(MLRUNS / 'mlflow.db').absolute()}"


def resolve_uri(uri: str | None) -> str:
    """Return the tracking URI: the given one, MLFLOW_TRACKING_URI, or the database in mlruns/."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()


def connect(uri: str | None) -> Any:
    """Return an MlflowClient for a tracking store that answers.

    Args:
        uri: as in `resolve_uri`. A missing SQLite database is created.

    Raises:
        UserError: the store cannot be reached or created; passwords are masked.
    """
    set_environment()
    from mlflow import MlflowClient

    # mlflow logs each table that it creates, and the traceback of each error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = resolve_uri(uri)
    if "://" not in uri:
        raise UserError(
            f"tracking URI {without_password(uri)!r} has no scheme; give sqlite:///PATH or the "
            "http:// address of a server."
        )
    if uri.startswith("sqlite:"):
        _check_path(uri)
    with _reporting(uri):
        if uri.startswith("sqlite:///") and "?" not in uri:
            return connect_sqlite(uri)
        if uri.startswith(DATABASES):
            uri = with_psycopg(uri)
            _check_database_server(uri)
            client: Any = MlflowClient(uri)
            with exclusive("mlflow"):
                client.search_experiments(max_results=1)
            return client
        client = ServerClient(MlflowClient(uri))
        repeat(partial(client.search_experiments, max_results=1), PAUSES, STARTS_WITHIN)
        return client


def _check_path(uri: str) -> None:
    """Refuse an SQLite URI without a file, or with a path on which MLflow would retry for 100 s."""
    if uri.removeprefix("sqlite:").strip("/") in ("", ":memory:"):
        raise UserError(
            f"tracking URI {uri} names no file, so nothing would be kept; give sqlite:///PATH."
        )
    check_utf8(Path(uri.removeprefix("sqlite:///")).absolute())


def _check_database_server(uri: str) -> None:
    """Raise the error of a database that cannot be reached; MLflow tries again for 100 s first."""
    from sqlalchemy import create_engine

    timeout = {"connect_timeout": CONNECT_TIMEOUT}
    options = timeout if uri.startswith("postgres") and "connect_timeout" not in uri else {}
    engine = create_engine(uri, connect_args=options)
    try:
        engine.connect().close()
    finally:
        engine.dispose()


def is_server(client: Any) -> bool:
    """Return whether a client talks to an MLflow server, and not to a database."""
    return str(client.tracking_uri).startswith("http")


def is_default(uri: str | None) -> bool:
    """Return whether a tracking URI, as in `resolve_uri`, names the SQLite database in mlruns/."""
    uri = resolve_uri(uri)
    path = Path(uri.removeprefix("sqlite:///"))
    return uri.startswith("sqlite:///") and path.absolute() == (MLRUNS / "mlflow.db").absolute()


def check_default_store() -> None:
    """Check in a millisecond whether mlruns/ can hold the default store.

    `connect` finds the other errors, but takes seconds.

    Raises:
        UserError: the folder is read-only, or mlflow.db is not a database.
    """
    with _reporting(default_tracking_uri()):
        path = MLRUNS / "mlflow.db"
        (MLRUNS / "locks").mkdir(parents=True, exist_ok=True)
        (MLRUNS / "locks" / "mlflow.lock").touch()
        check_room(MLRUNS)
        if path.exists():
            check_database(path)


@contextmanager
def _reporting(uri: str) -> Iterator[None]:
    """Raise every error of the block as a UserError that names the store."""
    try:
        yield
    # SQLAlchemy, requests and mlflow each raise their own exceptions, some with the password.
    except Exception as error:
        raise UserError(
            f"MLflow at {without_password(uri)} does not answer: {reason(error)}"
        ) from None
