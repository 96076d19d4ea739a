"""Recovers from dead launches: sends trials that they left in the outbox, and ends their runs."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.launches import is_alive
from studies.harness.store.trials import restore_record
from studies.harness.tracking.client import find_runs
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
