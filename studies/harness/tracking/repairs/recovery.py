"""Recovers from dead launches: sends trials that they left in the outbox, and ends their runs.

`find_sent` tells whether there is nothing to recover.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.launches import is_alive, lease_of
from studies.harness.store.locks import exclusive
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.repairs.restore import any_folder, files_on_disk, restore, send_again
from studies.harness.tracking.runs import end_run
from studies.harness.tracking.sending.outbox import read_folder_name, trial_folders
from studies.harness.tracking.sending.tracker import Tracker


def recover(tracker: Tracker, study: optuna.Study) -> int:
    """Give the tracker what dead launches did not send, and end the MLflow runs they left open.

    A launch may train during this. If MLflow has no run of any trial, all runs are written again.
    Two launches never adopt the same trial: one recovers at a time, and renames what it adopts.

    Returns:
        How many trials of the outbox are to be sent.
    """
    with exclusive(f"recover-{study.study_name}", study._storage):
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
    send_again(tracker, study, trial, own)
    return True


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
