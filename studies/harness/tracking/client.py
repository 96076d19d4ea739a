"""Connects to MLflow's tracking store, creates experiments, and finds experiments and runs.

Functions import mlflow themselves, because its import takes about a second.
"""

from __future__ import annotations

import functools
import glob
import importlib.metadata
import logging
import math
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.moved import rebase
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import reason, with_psycopg, without_password

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# mlflow's own retry after a lost answer creates a run twice; `_RepeatingClient` repeats the rest.
os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] = "0"
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

ATTEMPTS = 3  # calls of a server until one is answered
PAUSES = (0.2, 0.5, 1.0, 2.0)  # seconds between the first calls of a server that does not answer
STARTS_WITHIN = 8.0  # seconds; a server that has not answered by then is not called again
CONNECT_TIMEOUT = 4  # seconds
DATABASES = ("sqlite:", "postgresql", "postgres:", "mysql", "mssql")
QUICK = 5.0  # seconds; a call that failed after a longer time is not repeated
VERSIONS = ("makemore-studies", "torch", "numba", "optuna", "mlflow")


def default_tracking_uri() -> str:
    """Return the URI of the SQLite database in mlruns/."""
    return f"sqlite:///{(MLRUNS / 'mlflow.db').absolute()}"


def resolve_uri(uri: str | None) -> str:
    """Return the tracking URI: the given one, MLFLOW_TRACKING_URI, or the database in mlruns/."""
    return uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()


def versions() -> dict[str, str]:
    """Return the versions of this project and of the libraries that decide its numbers."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def connect(uri: str | None) -> Any:
    """Return an MlflowClient for a tracking store that answers.

    Args:
        uri: as in `resolve_uri`. A missing SQLite database is created.

    Raises:
        UserError: the store cannot be reached or created; passwords are masked.
    """
    from mlflow import MlflowClient

    # mlflow logs each table that it creates, and the traceback of each error that it raises.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = resolve_uri(uri)
    if "://" not in uri:
        raise UserError(
            f"tracking URI {without_password(uri)!r} has no scheme; give sqlite:///PATH or the "
            "http:// address of a server."
        )
    with _reporting(uri):
        if uri.startswith("sqlite:///") and "?" not in uri:
            return _connect_sqlite(uri)
        if uri.startswith(DATABASES):
            uri = with_psycopg(uri)
            _check_database_server(uri)
            client: Any = MlflowClient(uri)
            with exclusive("mlflow"):
                client.search_experiments(max_results=1)
            return client
        client = _RepeatingClient(MlflowClient(uri))
        _wait_for_answer(client)
        return client


def _wait_for_answer(client: Any) -> None:
    """Call a server until it answers, a few times."""
    begun = time.monotonic()
    for pause in (*PAUSES, math.inf):
        try:
            client.search_experiments(max_results=1)
            return
        except Exception:
            if time.monotonic() + pause - begun > STARTS_WITHIN:
                raise
        time.sleep(pause)


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


class _RepeatingClient:
    """An MlflowClient of a server, which repeats a call whose answer was lost.

    It does not repeat calls that create something: the server may have done the first one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found) or name.startswith("create_"):
            return found
        return functools.partial(_repeat, found)


def _repeat(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    from mlflow.exceptions import RestException

    begun = time.monotonic()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return call(*args, **options)
        except RestException:  # the server's own answer
            raise
        except Exception:
            if attempt == ATTEMPTS or time.monotonic() - begun > QUICK:
                raise


def is_server(client: Any) -> bool:
    """Return whether a client talks to an MLflow server, and not to a database."""
    return str(client.tracking_uri).startswith("http")


def _connect_sqlite(uri: str) -> Any:
    from mlflow import MlflowClient

    path = Path(uri.removeprefix("sqlite:///"))
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive("mlflow"):  # processes that create the database together crash each other
        _check_room(path.parent)
        if path.exists():
            _check_database(path)
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
        _check_room(MLRUNS)
        if path.exists():
            _check_database(path)


def _check_database(path: Path) -> None:
    """Raise sqlite3's error if a file is not a database; SQLAlchemy tries again for 100 s first."""
    with closing(sqlite3.connect(path)) as database:
        database.execute("PRAGMA schema_version")


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


def _check_room(folder: Path) -> None:
    """Write as much as SQLite needs to open a database; on a full disk SQLite gives no reason.

    Raises:
        OSError: the folder cannot be written; with the system's reason.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(64 * 1024))


def _create_database(path: Path) -> None:
    """Create MLflow's tables in a temporary file, and move it to `path` when it is complete.

    MLflow creates them in about sixty migrations. A launch that is killed in between leaves no
    partial database, and the disk is waited for once instead of hundreds of times.
    """
    from mlflow import MlflowClient

    new = path.with_name(f".{path.name}.new").absolute()
    for left in path.parent.glob(f"{glob.escape(new.name)}*"):  # from a killed launch
        left.unlink()
    _set_synchronous(new, "OFF")
    new.touch()  # fails at once if no file can be created
    try:
        MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


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


def get_experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created if it is missing.

    Raises:
        UserError: an experiment of that name was deleted; MLflow does not allow the name again.
    """
    with exclusive("mlflow"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = client.tracking_uri.startswith("sqlite:///")
            location = (MLRUNS / "artifacts" / name).absolute().as_uri() if local else None
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except Exception:
                # The answer was lost, or another launch created it at the same moment.
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {name!r} was deleted, and MLflow does not allow its name again; "
            "take another --study, or restore it with: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def find_experiment(client: Any, name: str) -> Any:
    """Return an experiment that exists.

    Raises:
        UserError: it does not exist; names the experiments that do.
    """
    experiments = {experiment.name: experiment for experiment in client.search_experiments()}
    if name not in experiments:
        known = sorted(experiments.keys() - {"Default"})  # MLflow creates Default by itself
        raise UserError(
            f"no study {name!r} in this MLflow store; it holds {', '.join(known) or 'none'}."
        )
    return experiments[name]


def experiments_with_runs(client: Any) -> list[Any]:
    """Return the experiments that have runs; the one with the newest run comes first."""
    newest = []
    for experiment in client.search_experiments():
        for run in find_runs(client, experiment.experiment_id, most=1):
            newest.append((run.info.start_time, experiment))
    newest.sort(key=lambda pair: pair[0], reverse=True)
    return [experiment for _, experiment in newest]


def find_runs(
    client: Any, experiment_id: str, query: str = "", most: int | None = None, **tags: object
) -> list[Any]:
    """Return the runs of an experiment, newest first.

    Args:
        client: an MlflowClient.
        experiment_id: id of the experiment.
        query: a filter in MLflow's syntax.
        most: how many runs to return; None for all.
        tags: values that the runs' tags must have.
    """
    conditions = [query] if query else []
    conditions += [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    query = " and ".join(conditions)
    runs: list[Any] = []
    page = client.search_runs([experiment_id], query, max_results=min(most or 1000, 1000))
    while True:
        runs += page
        if not page.token or (most is not None and len(runs) >= most):
            return runs[:most]
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=page.token)
