"""Writes MLflow runs: metrics, params, tags, dataset and artifacts; and whole runs without a study.

Functions import mlflow themselves, because its import takes about a second.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.errors import Outage
from studies.harness.store.text import reason
from studies.harness.tracking.connection.answers import repeat
from studies.harness.tracking.connection.connect import PAUSES, STARTS_WITHIN, is_server
from studies.harness.tracking.connection.find import find_runs

if TYPE_CHECKING:
    from makemore.data import Corpus

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run
# Files of a parent run that become tags; a kill cannot lose what is in the outbox.
NOTE_FILE = "note.md"
BEST_FILE = "best.json"  # the parameters of the best trial: name -> value
VERSIONS = ("makemore-studies", "torch", "numba", "optuna", "mlflow")
MAX_METRICS = 1000  # MLflow's limit for one log_batch


def describe_data(corpus: Corpus, names: Path | None) -> dict[str, str]:
    """Return the words as a dataset for MLflow: name, sha256 and source.

    Args:
        corpus: the words.
        names: the file of words, or None for the embedded names.
    """
    source = str(names.absolute()) if names else f"makemore/{corpus.source}"
    return {"name": corpus.source, "sha256": corpus.sha256, "source": source}


@dataclass(frozen=True)
class FinishedRun:
    """The content of a run that is written at once.

    Attributes:
        name: name of the run.
        params: params of the run.
        metrics: (key, value, step); the compare page preselects the first one.
        tags: tags of the run.
        files: become the run's artifacts.
        started: start of the run, in seconds since the epoch.
    """

    name: str
    params: dict[str, Any]
    metrics: Sequence[tuple[str, float, int]]
    tags: dict[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    started: float = field(default_factory=time.time)


def log_run(
    client: Any,
    experiment_id: str,
    run: FinishedRun,
    dataset: dict[str, str],
    *,
    parent_id: str | None = None,
) -> str:
    """Write a finished run to MLflow, and return its id.

    Args:
        client: an MlflowClient.
        experiment_id: id of the experiment.
        run: the content of the run.
        dataset: from `describe_data`.
        parent_id: id of the run to nest it under.

    Raises:
        Outage: MLflow refused the run or did not answer.
    """
    log_id = uuid.uuid4().hex  # finds the run of an attempt whose answer was lost
    tags = {**context_tags(), **run.tags, "log_id": log_id}
    if parent_id:
        tags["mlflow.parentRunId"] = parent_id
    # One millisecond apart: tables show the latest value of a key.
    first = time.time() - len(run.metrics) / 1000
    rows = [
        (key, value, step, first + i / 1000) for i, (key, value, step) in enumerate(run.metrics)
    ]

    def write() -> str:
        found = find_runs(client, experiment_id, log_id=log_id)
        started = int(run.started * 1000)
        created = found[0] if found else client.create_run(experiment_id, started, tags, run.name)
        run_id = str(created.info.run_id)
        log_batch(client, run_id, rows, params=run.params)
        log_inputs(client, run_id, dataset)
        for path in run.files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, "FINISHED")
        if is_server(client):
            check_stored(client, run_id, "FINISHED", metrics=rows, params=run.params)
            runs = find_runs(client, experiment_id, log_id=log_id)
            remove_doubles(client, run_id, runs, lambda other: False)
        return run_id

    try:
        return repeat(write, PAUSES if is_server(client) else (), STARTS_WITHIN)
    # SQLAlchemy, requests and mlflow each raise their own exceptions, some with the password.
    except Exception as error:
        raise Outage(f"run {run.name!r} was not written: {reason(error)}") from None


def log_batch(
    client: Any,
    run_id: str,
    metrics: Sequence[tuple[str, float, int, float]] = (),
    *,
    params: dict[str, Any] | None = None,
    tags: dict[str, str] | None = None,
) -> None:
    """Write metrics, params and tags of a run; metrics that are not finite are left out.

    Args:
        client: an MlflowClient.
        run_id: id of the run.
        metrics: (key, value, step, seconds since the epoch).
        params: params of the run, written as text.
        tags: tags of the run.
    """
    from mlflow.entities import Metric, Param, RunTag

    rows = [
        Metric(key, value, int(at * 1000), step)
        for key, value, step, at in metrics
        if math.isfinite(value)
    ]
    client.log_batch(
        run_id,
        metrics=rows[:MAX_METRICS],
        params=[Param(key, str(value)) for key, value in (params or {}).items()],
        tags=[RunTag(key, value) for key, value in (tags or {}).items()],
    )
    for first in range(MAX_METRICS, len(rows), MAX_METRICS):
        client.log_batch(run_id, metrics=rows[first : first + MAX_METRICS], params=[], tags=[])


def log_inputs(client: Any, run_id: str, dataset: dict[str, str]) -> None:
    """Write the dataset (name, sha256, source) as an input of a run."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    data = Dataset(
        name=dataset["name"],
        digest=dataset["sha256"][:32],
        source_type="local",
        source=json.dumps({"uri": dataset["source"]}),
    )
    client.log_inputs(run_id, [DatasetInput(data, [InputTag("mlflow.data.context", "training")])])


class NotStored(Outage):
    """A server confirmed a run, but does not have all of it."""


def check_stored(
    client: Any,
    run_id: str,
    status: str,
    *,
    metrics: Sequence[tuple[str, float, int, float]] = (),
    params: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Check that a server has what it confirmed; a proxy may have answered in its place.

    Args:
        client: an MlflowClient.
        run_id: id of the run.
        status: the run's MLflow status.
        metrics: metrics of the run, as for `log_batch`.
        params: params of the run.
        folder: its files are the run's artifacts.

    Raises:
        NotStored: something is missing.
    """
    run = client.get_run(run_id)
    missing = [] if run.info.status == status else [f"status {status}"]
    missing += sorted((params or {}).keys() - run.data.params.keys())
    sent = [row for row in metrics if math.isfinite(row[1])]
    missing += sorted({row[0] for row in sent} - run.data.metrics.keys())
    if steps := {step for key, _, step, _ in sent if key == "dev_loss"}:
        stored = {metric.step for metric in client.get_metric_history(run_id, "dev_loss")}
        missing += [f"dev_loss at step {step}" for step in sorted(steps - stored)]
    if folder is not None and folder.exists():
        missing += _missing_files(client, run_id, folder)
    if missing:
        raise NotStored(f"the server confirmed run {run_id} but lacks its {', '.join(missing)}")


def _missing_files(client: Any, run_id: str, folder: Path, path: str = "") -> list[str]:
    """Return the files of a folder that are not among a run's artifacts with the same size."""
    stored = {item.path: item.file_size for item in client.list_artifacts(run_id, path or None)}
    missing = []
    for file in sorted(folder.iterdir()):
        name = f"{path}/{file.name}" if path else file.name
        if file.is_dir():
            missing += _missing_files(client, run_id, file, name)
        elif stored.get(name) != file.stat().st_size:
            missing.append(name)
    return missing


def remove_doubles(
    client: Any, run_id: str, runs: Sequence[Any], is_whole: Callable[[str], bool]
) -> None:
    """Delete the runs that a server made at calls whose answers were lost.

    Args:
        client: an MlflowClient.
        run_id: id of a run that is whole.
        runs: this run and the others of the same trial and launch.
        is_whole: whether another run, given by its id, has everything too; it is kept then, because
            it may have more.

    Raises:
        NotStored: the server does not list the run, or there were several; ask again.
    """
    others = [run.info.run_id for run in runs if run.info.run_id != run_id]
    if len(others) == len(runs):
        raise NotStored(f"the server does not list run {run_id}")
    for other in others:
        kept, surplus = (other, run_id) if is_whole(other) else (run_id, other)
        client.delete_run(surplus)
        run_id = kept
    if others:
        raise NotStored(f"the server had run {run_id} {len(runs)} times")


def end_run(client: Any, run: Any, folder: Path | None) -> None:
    """End a run that a dead launch left open.

    Args:
        client: an MlflowClient.
        run: the MLflow run.
        folder: outbox folder of a parent run; if it exists, the launch had finished its study. None
            for the run of a trial.
    """
    run_id = run.info.run_id
    if folder is not None and folder.exists():
        client.log_artifacts(run_id, str(folder))
        log_batch(client, run_id, tags=parent_tags(folder))
        client.set_terminated(run_id, "FINISHED")
        shutil.rmtree(folder)
        return
    tags = {"state": "INTERRUPTED", "reason": "interrupted"}
    if folder is not None:
        tags[NOTE] = "This launch ended before it wrote its report. A later launch has the report."
    log_batch(client, run_id, tags=tags)
    client.set_terminated(run_id, "KILLED")


def parent_tags(folder: Path) -> dict[str, str]:
    """Return the tags of a parent run that its files hold: the note, and `best.NAME`."""
    note = folder / NOTE_FILE
    best = folder / BEST_FILE
    tags = {NOTE: note.read_text(encoding="utf-8")} if note.exists() else {}
    values = json.loads(best.read_text(encoding="utf-8")) if best.exists() else {}
    return tags | {f"best.{name}": str(value) for name, value in values.items()}


def artifact_store(client: Any, artifact_uri: str) -> Any:
    """Return the artifact repository of a run; `client.log_artifacts` would load the run first."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)


@functools.cache
def context_tags() -> dict[str, str]:
    """Return MLflow's own tags (user, source, git commit) and the versions of the libraries."""
    from mlflow.tracking.context.registry import resolve_tags

    shown = ", ".join(f"{name} {version}" for name, version in versions().items())
    return {**resolve_tags(), "versions": shown}


def versions() -> dict[str, str]:
    """Return the versions of this project and of the libraries that decide its numbers."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}
