"""Finds whether MLflow has all of a study; asks the default store without importing mlflow."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import Any

from studies.harness.store.paths import MLRUNS
from studies.harness.tracking.connection.connect import connect, is_default
from studies.harness.tracking.connection.find import find_runs

# A database query takes a millisecond, the import of mlflow a second. MLflow's tables have had
# these columns since its version 1. If a later version changes them, the study starts as usual.
RUNS = """
SELECT runs.experiment_id, runs.run_uuid, runs.status, tags.value
FROM runs JOIN experiments ON runs.experiment_id = experiments.experiment_id
LEFT JOIN tags ON tags.run_uuid = runs.run_uuid AND tags.key = 'trial'
WHERE experiments.name = ? AND experiments.lifecycle_stage = 'active'
AND runs.lifecycle_stage = 'active' ORDER BY runs.start_time DESC
"""


def find_sent(tracking_uri: str | None, study: str) -> tuple[str, str] | None:
    """Return the ids of a study's experiment and of its newest parent run, if all of it is sent.

    Returns:
        None if a file waits in the outbox, a run is open, no trial has a run, or the newest launch
        did not finish the study.
    """
    outbox = MLRUNS / "outbox" / study
    if outbox.exists() and any(outbox.iterdir()):
        return None
    local = is_default(tracking_uri)
    runs = _query_runs(study) if local else _search_runs(tracking_uri, study)
    parents = [run for run in runs if run[3] is None]
    if not parents or len(parents) == len(runs):
        return None
    experiment_id, parent_id, status, _ = parents[0]
    if status != "FINISHED" or any(run[2] == "RUNNING" for run in runs):
        return None
    return str(experiment_id), str(parent_id)


def _query_runs(study: str) -> list[Any]:
    """Return experiment, id, status and trial of each run in the default store, newest first."""
    uri = f"{(MLRUNS / 'mlflow.db').absolute().as_uri()}?mode=ro"
    try:
        with closing(sqlite3.connect(uri, uri=True)) as database:
            return database.execute(RUNS, (study,)).fetchall()
    except sqlite3.Error:  # no database yet
        return []


def _search_runs(tracking_uri: str | None, study: str) -> list[Any]:
    """Return experiment, id, status and trial of each run in another store, newest first."""
    client = connect(tracking_uri)
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return []
    return [
        (run.info.experiment_id, run.info.run_id, run.info.status, run.data.tags.get("trial"))
        for run in find_runs(client, experiment.experiment_id)
    ]
