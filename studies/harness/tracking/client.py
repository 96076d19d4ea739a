"""MLflow's store: reach it, make what is missing, and the writes and reads that the tracker and the doctor are made of.

mlflow is imported late, since that takes about a second.
"""

from __future__ import annotations

import functools
import glob
import importlib.metadata
import json
import logging
import math
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import reason, without_password

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# The outbox does the waiting; mlflow's own retries would block for minutes on a server that is away.
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

VERSIONS = ("makemore-studies", "torch", "numba", "optuna", "mlflow")


def default_tracking_uri() -> str:
    """The SQLite database in mlruns/."""
    return f"sqlite:///{(MLRUNS / 'mlflow.db').absolute()}"


def versions() -> dict[str, str]:
    """Versions of this project and of what decides its numbers."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}


def connect(uri: str | None) -> Any:
    """An MlflowClient on a tracking store that answers.

    Raises:
        UserError: the store cannot be reached or made; one sentence, without the password.
    """
    from mlflow import MlflowClient

    # It logs the tables it makes, and with a traceback each error that is raised as well.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
    if "://" not in uri:
        raise UserError(
            f"tracking URI {without_password(uri)!r} has no scheme; give sqlite:///PATH or the http:// address of a "
            "server."
        )
    with _one_sentence(uri):
        if not uri.startswith("sqlite:///") or "?" in uri:
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
            return client
        path = Path(uri.removeprefix("sqlite:///"))
        path.parent.mkdir(parents=True, exist_ok=True)
        with exclusive("mlflow"):  # processes that create the database together crash each other
            if not path.exists():
                _make_database(path)
            # With WAL a commit need not reach the disk: a power cut may take the last ones back, and harms nothing.
            _wait_less(path.absolute(), "NORMAL")
            _check_room(path.parent)
            # MLflow retries a database that it cannot open for 100 s; sqlite3 fails at once. While
            # this connection is open, MLflow needs no further room to open the database.
            with closing(sqlite3.connect(path)) as database:
                # Persists in the file, and halves the time of each call.
                database.execute("PRAGMA journal_mode=WAL")
                client = MlflowClient(uri)
                client.search_experiments(max_results=1)
        return client


def is_default(uri: str | None) -> bool:
    """Whether a tracking URI, or without one the environment, leads to the SQLite database in mlruns/."""
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
    path = Path(uri.removeprefix("sqlite:///"))
    return uri.startswith("sqlite:///") and path.absolute() == (MLRUNS / "mlflow.db").absolute()


def check_default_store() -> None:
    """Refuse a place that cannot hold the default store, in a millisecond; `connect` finds the rest, in seconds.

    Raises:
        UserError: the folder cannot be written, or what stands there is no database; one sentence.
    """
    with _one_sentence(default_tracking_uri()):
        path = MLRUNS / "mlflow.db"
        (MLRUNS / "locks").mkdir(parents=True, exist_ok=True)
        (MLRUNS / "locks" / "mlflow.lock").touch()
        if path.exists():
            with closing(sqlite3.connect(path)) as database:
                database.execute("PRAGMA schema_version")


@contextmanager
def _one_sentence(uri: str) -> Iterator[None]:
    try:
        yield
    except (
        Exception
    ) as error:  # SQLAlchemy, requests and mlflow each have their own, and some carry the password
        raise UserError(
            f"MLflow at {without_password(uri)} does not answer: {reason(error)}"
        ) from None


def _check_room(folder: Path) -> None:
    """Write what SQLite needs to open a database; on a full disk it says only "disk I/O error".

    Raises:
        OSError: the folder cannot be written; with the system's reason.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(64 * 1024))


def _make_database(path: Path) -> None:
    """Have MLflow make its tables in a file beside `path`, and move it there once it is whole and on the disk.

    MLflow makes them in some sixty migrations; a launch that is killed among them leaves no half of a database, and
    the disk is waited for once instead of a few hundred times.
    """
    from mlflow import MlflowClient

    new = path.with_name(f".{path.name}.new").absolute()
    for left in path.parent.glob(f"{glob.escape(new.name)}*"):  # by a kill, perhaps with a journal
        left.unlink()
    _wait_less(new, "OFF")
    new.touch()  # fails at once where no file can be made
    try:
        MlflowClient(f"sqlite:///{new}").search_experiments(max_results=1)
        with new.open("rb") as file:
            os.fsync(file.fileno())
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)


@functools.cache
def _wait_less(path: Path, synchronous: str) -> None:
    """Set how far SQLAlchemy's connections to a SQLite file wait for the disk: PRAGMA synchronous, FULL by default."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    def set_pragma(connection: Any, _: Any) -> None:
        # Other databases are connected to as well, Optuna's perhaps.
        if isinstance(connection, sqlite3.Connection):
            if connection.execute("PRAGMA database_list").fetchone()[2] == os.path.realpath(path):
                connection.execute(f"PRAGMA synchronous={synchronous}")

    event.listen(Engine, "connect", set_pragma)


def get_experiment(client: Any, name: str) -> str:
    """The id of the experiment of a study, made if missing.

    Raises:
        UserError: an experiment of that name was deleted; MLflow does not give such a name again.
    """
    with exclusive("mlflow"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = client.tracking_uri.startswith("sqlite:///")
            location = (MLRUNS / "artifacts" / name).absolute().as_uri() if local else None
            return str(client.create_experiment(name, artifact_location=location))
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {name!r} was deleted, and MLflow does not give its name again; take another --study, "
            f"or restore it with: mlflow experiments restore -x {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def find_runs(
    client: Any, experiment_id: str, query: str = "", most: int | None = None, **tags: object
) -> list[Any]:
    """The runs of an experiment that answer MLflow's `query` and carry all of these tags, newest first."""
    query = " and ".join(
        [query] * bool(query) + [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    )
    runs: list[Any] = []
    page = client.search_runs([experiment_id], query, max_results=min(most or 1000, 1000))
    while True:
        runs += page
        if not page.token or (most is not None and len(runs) >= most):
            return runs[:most]
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=page.token)


def end_run(client: Any, run: Any, folder: Path | None) -> None:
    """End a run that its launch left open; a parent run whose folder is there had come to its end."""
    if folder is not None and folder.exists():
        client.log_artifacts(run.info.run_id, str(folder))
        client.set_terminated(run.info.run_id, "FINISHED")
        shutil.rmtree(folder)
        return
    log_batch(client, run.info.run_id, tags={"state": "INTERRUPTED", "reason": "interrupted"})
    client.set_terminated(run.info.run_id, "KILLED")


def artifact_store(client: Any, artifact_uri: str) -> Any:
    """Where a run's artifacts are, without a look at the run, which `client.log_artifacts` takes first."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)


@functools.cache
def context_tags() -> dict[str, str]:
    """MLflow's own tags (user, source, git commit) and the versions of what decides the numbers."""
    from mlflow.tracking.context.registry import resolve_tags

    return {
        **resolve_tags(),
        "versions": ", ".join(f"{name} {version}" for name, version in versions().items()),
    }


def log_batch(
    client: Any,
    run_id: str,
    metrics: Sequence[tuple[str, float, int, float]] = (),
    *,
    params: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Write metrics (key, value, step, seconds since the epoch), at most 1000 a call, with params and tags."""
    from mlflow.entities import Metric, Param, RunTag

    rows = [
        Metric(key, value, int(at * 1000), step)
        for key, value, step, at in metrics
        if math.isfinite(value)
    ]
    for first in range(0, max(1, len(rows)), 1000):
        client.log_batch(
            run_id,
            metrics=rows[first : first + 1000],
            params=[Param(key, str(value)) for key, value in (params or {}).items()]
            if first == 0
            else [],
            tags=[RunTag(key, value) for key, value in (tags or {}).items()] if first == 0 else [],
        )


def log_inputs(client: Any, run_id: str, dataset: dict[str, str]) -> None:
    """Write the dataset (name, sha256, source) as an input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    source = json.dumps({"uri": dataset["source"]})
    data = Dataset(
        name=dataset["name"], digest=dataset["sha256"][:32], source_type="local", source=source
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])
