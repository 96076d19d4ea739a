"""Recovers from dead launches: sends trials that they left in the outbox, and ends their runs.

`find_sent` tells whether there is nothing to recover.
"""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import tomllib
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.launches import is_alive, lease_of
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.trials import dev_loss, restore_record
from studies.harness.tracking.connection.connect import connect, is_default
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.runs import end_run
from studies.harness.tracking.tracker import Tracker, read_folder_name, trial_folders

LOST = "from Optuna's record; the checkpoint and the samples are lost"


def recover(tracker: Tracker, study: optuna.Study) -> int:
    """Give the tracker what dead launches did not send, and end the MLflow runs they left open.

    A launch may train during this. If MLflow has no run of any trial, all runs are written again.
    Two launches never adopt the same trial: one recovers at a time, and renames what it adopts.

    Returns:
        How many trials of the outbox are to be sent.
    """
    with exclusive(f"recover-{study.study_name}"):
        senders = {read_folder_name(folder)[2] for folder in trial_folders(tracker.outbox)}
        dead = _dead(tracker, study, senders)
        # Only now: the folders and trials of a launch that is dead no longer change.
        folders = trial_folders(tracker.outbox)
        left = [folder for folder in folders if read_folder_name(folder)[2] in dead]
        trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
        adopted = [_adopt(tracker, study, trials, folder) for folder in left]
        _remove_unfinished(tracker, study)
        if not find_runs(tracker.client, tracker.experiment_id, "tags.trial != ''", most=1):
            _restore_all(tracker, study, trials)
        _end_open_runs(tracker, study)
    return sum(adopted)


def _adopt(
    tracker: Tracker, study: optuna.Study, trials: dict[int, FrozenTrial], folder: Path
) -> bool:
    """Send the outbox folder of a finished trial, whose launch is dead; returns whether it is sent.

    The folder of a requeued trial is removed, because the trial is trained again.
    """
    number, launch, _ = read_folder_name(folder)
    trial = trials.get(number)
    if trial is None or not trial.state.is_finished() or trial.user_attrs.get("launch") != launch:
        shutil.rmtree(folder)
        return False
    own = tracker.folder_path(number, launch)
    folder.rename(own)
    _send(tracker, study, trial, own)
    return True


def _send(tracker: Tracker, study: optuna.Study, trial: FrozenTrial, folder: Path) -> None:
    """Let the tracker send a finished trial, whose run says what the folder lacks."""
    record = restore_record(study, trial)
    if any(not (folder / name).exists() for name in expected_files(trial)):
        record.tags["restored"] = LOST
    tracker.adopt(record, folder)


def _remove_unfinished(tracker: Tracker, study: optuna.Study) -> None:
    """Remove the folders that launches were writing when they were killed."""
    dead = _dead(tracker, study, map(_writer, _unfinished(tracker.outbox)))
    # Listed again: a launch that has just ended has removed its own folders.
    for folder in _unfinished(tracker.outbox):
        if _writer(folder) in dead:
            shutil.rmtree(folder)


def _unfinished(outbox: Path) -> list[Path]:
    return list(outbox.glob(".[pr]*-*"))  # .parent-LAUNCH-RANDOM and .restore-LAUNCH-RANDOM


def _writer(folder: Path) -> str:
    """Return the launch that was writing an unfinished folder."""
    return folder.name.split("-", 1)[1].rpartition("-")[0]


def _restore_all(tracker: Tracker, study: optuna.Study, trials: dict[int, FrozenTrial]) -> None:
    """Write the run of every finished trial again, because MLflow has none."""
    files = files_on_disk(tracker, study)
    for trial in trials.values():
        if not trial.state.is_finished() or "seed" not in trial.user_attrs:
            continue
        # The tracker sends its own trials and those in the outbox anyway.
        if trial.user_attrs.get("launch") != tracker.launch:
            if not any_folder(tracker, trial.number):
                restore(tracker, study, trial, files)


def _end_open_runs(tracker: Tracker, study: optuna.Study) -> None:
    """End the open runs of dead launches, except those of trials that are still to be sent."""
    pending = {read_folder_name(folder)[:2] for folder in trial_folders(tracker.outbox)}
    runs = find_runs(tracker.client, tracker.experiment_id, "attributes.status = 'RUNNING'")
    dead = _dead(tracker, study, {run.data.tags.get("launch", "") for run in runs})
    for run in runs:
        launch = run.data.tags.get("launch", "")
        number = run.data.tags.get("trial")
        if launch not in dead or (number is not None and (int(number), launch) in pending):
            continue
        # Read again: the launch may have ended this run before it ended itself.
        if tracker.client.get_run(run.info.run_id).info.status == "RUNNING":
            parent_files = tracker.outbox / f"parent-{launch}"
            end_run(tracker.client, run, parent_files if number is None else None)


def _dead(tracker: Tracker, study: optuna.Study, launches: Iterable[str]) -> set[str]:
    """Return which of these launches have ended."""
    others = set(launches) - {tracker.launch}
    return {launch for launch in others if not is_alive(lease_of(study, launch))}


def any_folder(tracker: Tracker, number: int) -> bool:
    """Return whether the outbox has files of a trial."""
    return any(tracker.outbox.glob(f"{number:05d}-*"))


def expected_files(trial: FrozenTrial) -> set[str]:
    """Return the names of the files that the run of a finished trial must have."""
    return {"config.toml"} if dev_loss(trial) is None else {"config.toml", "samples.txt"}


def restore(
    tracker: Tracker,
    study: optuna.Study,
    trial: FrozenTrial,
    files: dict[int, list[Path]],
    replaced: Iterable[str] = (),
) -> None:
    """Write a trial's run again from Optuna's record.

    Optuna has neither the checkpoint nor the samples. They are copied from the disk and from the
    runs that are replaced. If there are none, the run's tag `restored` says so.

    Args:
        files: from `files_on_disk`.
        replaced: ids of the trial's runs that are deleted afterwards.
    """
    record = restore_record(study, trial)
    origin = {"study": study.study_name, "trial": trial.number}
    config = record.config.to_toml(origin=origin)
    prefix = f".restore-{tracker.launch}-"
    with tempfile.TemporaryDirectory(dir=tracker.outbox, prefix=prefix) as name:
        folder = Path(name) / "files"
        folder.mkdir()
        (folder / "config.toml").write_text(config)
        same = [
            old
            for old in files.get(trial.number, [])
            if _config(old) == tomllib.loads(config)["config"]
        ]
        if same:
            shutil.copytree(max(same, key=_completeness), folder, dirs_exist_ok=True)
        for run_id in replaced:
            tracker.client.download_artifacts(run_id, "", str(folder))
        own = tracker.folder_path(trial.number, record.tags["launch"])
        folder.rename(own)
    _send(tracker, study, trial, own)


def files_on_disk(tracker: Tracker, study: optuna.Study) -> dict[int, list[Path]]:
    """Return the folders of artifacts on this disk by trial, also those of runs MLflow has lost."""
    location = tracker.client.get_experiment(tracker.experiment_id).artifact_location
    found: dict[int, list[Path]] = {}
    if not location.startswith("file://"):
        return found
    for path in Path(url2pathname(urlsplit(location).path)).glob("*/artifacts/config.toml"):
        origin = _tables(path.parent).get("origin", {})
        # A deleted study of the same name may have left other words.
        if origin.get("study") == study.study_name and "trial" in origin:
            if origin.get("data_sha256") in (None, study.user_attrs.get("data_sha256")):
                found.setdefault(int(origin["trial"]), []).append(path.parent)
    return found


def _tables(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # cut off by a full disk
        return {}


def _config(folder: Path) -> Any:
    return _tables(folder).get("config")


def _completeness(folder: Path) -> tuple[int, float]:
    """Rank the folders of one trial: by the number of files, then by age."""
    return len(list(folder.iterdir())), folder.stat().st_mtime


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
