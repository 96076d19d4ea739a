"""Writes MLflow runs: metrics, params, tags, dataset and artifacts.

Functions import mlflow themselves, because its import takes about a second.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
import math
import os
import shutil
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from studies.harness.tracking.connection.find import find_runs

if TYPE_CHECKING:
    from makemore.data import Corpus

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run
# Files of a parent run that become tags; a kill cannot lose what is in the outbox.
NOTE_FILE = "note.md"
BEST_FILE = "best.json"  # the winner: its trial, losses and parameters
# {"at": seconds since the epoch, "winner": trial or null, "means": {trial: {metric: value}}}
CONFIRMED_FILE = "confirmed.json"
WINNER = "winner"  # the tag of the winner's run
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
        log_confirmed(client, run.info.experiment_id, folder)
        client.set_terminated(run_id, "FINISHED")
        shutil.rmtree(folder)
        return
    tags = {"state": "INTERRUPTED", "reason": "interrupted"}
    if folder is not None:
        tags[NOTE] = "This launch ended before it wrote its report. A later launch has the report."
    log_batch(client, run_id, tags=tags)
    client.set_terminated(run_id, "KILLED")


def parent_tags(folder: Path) -> dict[str, str]:
    """Return the tags of a parent run that its files hold: the note, and `winner.NAME`."""
    note = folder / NOTE_FILE
    best = folder / BEST_FILE
    tags = {NOTE: note.read_text(encoding="utf-8")} if note.exists() else {}
    values = json.loads(best.read_text(encoding="utf-8")) if best.exists() else {}
    return tags | {f"{WINNER}.{name}": str(value) for name, value in values.items()}


def log_confirmed(client: Any, experiment_id: str, folder: Path) -> None:
    """Write the means over seed repeats to the runs of the trials, and mark the winner's run.

    Args:
        client: an MlflowClient.
        experiment_id: the study's experiment.
        folder: files of a parent run, which hold the means.
    """
    path = folder / CONFIRMED_FILE
    if not path.exists():
        return
    confirmed = json.loads(path.read_text(encoding="utf-8"))
    winner = str(confirmed["winner"])
    for run in find_runs(client, experiment_id, f"tags.{WINNER} = 'yes'"):
        if run.data.tags["trial"] != winner:
            client.delete_tag(run.info.run_id, WINNER)
    for run in find_runs(client, experiment_id, trial=winner):
        if run.data.tags.get("state") in ("COMPLETE", "PRUNED"):
            client.set_tag(run.info.run_id, WINNER, "yes")
    for number, metrics in confirmed["means"].items():
        for run in find_runs(client, experiment_id, trial=int(number)):
            if run.data.tags.get("state") == "COMPLETE":
                rows = [(key, value, 0, confirmed["at"]) for key, value in metrics.items()]
                log_batch(client, run.info.run_id, rows)


def artifact_store(client: Any, artifact_uri: str) -> Any:
    """Return the artifact repository of a run; `client.log_artifacts` would load the run first."""
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    return get_artifact_repository(artifact_uri, tracking_uri=client.tracking_uri)


def log_artifacts(client: Any, artifact_uri: str, folder: Path) -> None:
    """Write the files of a folder as artifacts of a run, which may have some of them.

    Args:
        client: an MlflowClient.
        artifact_uri: of the run.
        folder: holds the files. They must not be changed in place later: on the same disk they
            become links to the same files.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if is_local_uri(artifact_uri):
        # A tenth of the time of MLflow's own copy, with the same permissions and times.
        target = local_file_uri_to_path(artifact_uri)
        shutil.copytree(folder, target, copy_function=_link, dirs_exist_ok=True)
    else:
        artifact_store(client, artifact_uri).log_artifacts(str(folder))


def _link(source: str, target: str) -> None:
    """Link a file, or copy it where that is not possible; an earlier file is replaced."""
    if os.path.lexists(target):
        os.unlink(target)
    if not os.path.islink(source):
        with suppress(OSError):
            os.link(source, target)
            return
    shutil.copy2(source, target)


@functools.cache
def context_tags() -> dict[str, str]:
    """Return MLflow's own tags (user, source, git commit) and the versions of the libraries."""
    from mlflow.tracking.context.registry import resolve_tags

    shown = ", ".join(f"{name} {version}" for name, version in versions().items())
    return {**resolve_tags(), "versions": shown}


def versions() -> dict[str, str]:
    """Return the versions of this project and of the libraries that decide its numbers."""
    return {name: importlib.metadata.version(name) for name in VERSIONS}
