"""Writes a whole run at once, for scripts without a study."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.errors import Outage
from studies.harness.store.text import reason
from studies.harness.tracking.connection.answers import repeat
from studies.harness.tracking.connection.connect import PAUSES, STARTS_WITHIN, is_server
from studies.harness.tracking.connection.find import find_runs

if TYPE_CHECKING:
    pass
from studies.harness.tracking.runs import context_tags, log_batch, log_inputs
from studies.harness.tracking.stored import check_stored, remove_doubles


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
