"""Recovers from dead launches: sends trials that they left in the outbox, and ends their runs.

`find_sent` tells whether there is nothing to recover.
"""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.launches import is_alive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.trials import restore_record
from studies.harness.tracking.client import connect, find_runs, is_default
from studies.harness.tracking.runs import end_run
from studies.harness.tracking.tracker import Tracker

TrialKey = tuple[int, str]  # trial number, launch


def recover(tracker: Tracker, study: optuna.Study) -> int:
    """Give the tracker what dead launches did not send, and end the MLflow runs they left open.

    A launch may train during this. If MLflow has no run of any trial, all runs are written again.

    Returns:
        How many trials of the outbox are to be sent.
    """
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    adopted = _adopt_folders(tracker, study, trials)
    for folder in tracker.outbox.glob(".parent-*"):  # from a launch killed while it wrote them
        launch = folder.name.removeprefix(".parent-").rpartition("-")[0]
        if not _is_alive(tracker, study, launch):
            shutil.rmtree(folder)
    if not find_runs(tracker.client, tracker.experiment_id, "tags.trial != ''", most=1):
        _restore_all(tracker, study, trials)
    _end_open_runs(tracker, study, adopted)
    return len(adopted)


def _adopt_folders(
    tracker: Tracker, study: optuna.Study, trials: dict[int, FrozenTrial]
) -> set[TrialKey]:
    """Send the outbox folders of dead launches' finished trials, and return these trials.

    The folder of a requeued trial is removed, because the trial is trained again.
    """
    adopted = set()
    for folder in sorted(tracker.outbox.glob("[0-9]*-*")):
        number, launch = folder.name.split("-", 1)
        if _is_alive(tracker, study, launch):
            continue
        trial = trials.get(int(number))
        if trial is None or not trial.state.is_finished() or _launch_of(trial) != launch:
            shutil.rmtree(folder)
            continue
        tracker.adopt(restore_record(study, trial), folder)
        adopted.add((trial.number, launch))
    return adopted


def _restore_all(tracker: Tracker, study: optuna.Study, trials: dict[int, FrozenTrial]) -> None:
    """Write the run of every finished trial again, because MLflow has none."""
    for trial in trials.values():
        if not trial.state.is_finished() or "seed" not in trial.user_attrs:
            continue
        # The tracker sends its own trials and those in the outbox anyway.
        if _launch_of(trial) != tracker.launch and not any_folder(tracker, trial.number):
            restore(tracker, study, trial)


def _end_open_runs(tracker: Tracker, study: optuna.Study, adopted: set[TrialKey]) -> None:
    """End the open runs of dead launches, except those that the tracker ends itself."""
    for run in find_runs(tracker.client, tracker.experiment_id, "attributes.status = 'RUNNING'"):
        launch = run.data.tags.get("launch", "")
        number = run.data.tags.get("trial")
        if _is_alive(tracker, study, launch):
            continue
        if number is None:
            end_run(tracker.client, run, tracker.outbox / f"parent-{launch}")
        elif (int(number), launch) not in adopted:
            end_run(tracker.client, run, None)


def any_folder(tracker: Tracker, number: int) -> bool:
    """Return whether the outbox has files of a trial."""
    return any(tracker.outbox.glob(f"{number:05d}-*"))


def restore(tracker: Tracker, study: optuna.Study, trial: FrozenTrial) -> Path:
    """Write a trial's run again from Optuna's record, and return the folder of its artifacts.

    Optuna has neither the checkpoint nor the samples. The run's tag `restored` says so, and the
    folder holds only the config.
    """
    record = restore_record(study, trial)
    record.tags["restored"] = "from Optuna's record; the checkpoint and the samples are lost"
    folder = tracker.folder(record)
    origin = {"study": study.study_name, "trial": trial.number}
    (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
    tracker.adopt(record, folder)
    return folder


def _launch_of(trial: FrozenTrial) -> str | None:
    launch: str | None = trial.user_attrs.get("launch")
    return launch


def _is_alive(tracker: Tracker, study: optuna.Study, launch: str) -> bool:
    return launch == tracker.launch or is_alive(study.user_attrs.get(f"launch:{launch}"))


# ---- whether there is anything to recover

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
