"""What a launch that died left behind: trials not yet sent to MLflow, and MLflow runs that nobody will end."""

from __future__ import annotations

import shutil
from pathlib import Path

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.launches import is_alive
from studies.harness.store.trials import restore_record
from studies.harness.tracking.client import end_run, find_runs
from studies.harness.tracking.tracker import Tracker


def recover(tracker: Tracker, study: optuna.Study) -> int:
    """Hand the tracker what dead launches did not send, and end the MLflow runs that they left open.

    Training may go on beside it. A folder of the outbox that belongs to a finished trial is sent; one of a trial that
    was given back is dropped, since the trial is trained again.

    Returns:
        How many trials are to be sent.
    """
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    adopted = set()
    for folder in sorted(tracker.outbox.glob("[0-9]*-*")):
        number, launch = folder.name.split("-", 1)
        trial = trials.get(int(number))
        if _alive(tracker, study, launch):
            continue
        if (
            trial is None
            or not trial.state.is_finished()
            or trial.user_attrs.get("launch") != launch
        ):
            shutil.rmtree(folder)
            continue
        tracker.adopt(restore_record(study, trial), folder)
        adopted.add((int(number), launch))
    for folder in tracker.outbox.glob(".parent-*"):  # files of an ending that was killed
        if not _alive(tracker, study, folder.name.removeprefix(".parent-").rpartition("-")[0]):
            shutil.rmtree(folder)
    if not find_runs(tracker.client, tracker.experiment_id, "tags.trial != ''", most=1):
        for trial in trials.values():  # MLflow has lost the study, or never had it
            ours = (
                trial.user_attrs.get("launch") == tracker.launch
            )  # ended beside this, and sent like all others
            known = ours or any_folder(tracker, trial.number)
            if trial.state.is_finished() and "seed" in trial.user_attrs and not known:
                restore(tracker, study, trial)
    for run in find_runs(tracker.client, tracker.experiment_id, "attributes.status = 'RUNNING'"):
        launch, trial_tag = run.data.tags.get("launch", ""), run.data.tags.get("trial")
        if _alive(tracker, study, launch) or (trial_tag and (int(trial_tag), launch) in adopted):
            continue
        end_run(tracker.client, run, None if trial_tag else tracker.outbox / f"parent-{launch}")
    return len(adopted)


def any_folder(tracker: Tracker, number: int) -> bool:
    """Whether the outbox holds files of a trial."""
    return any(tracker.outbox.glob(f"{number:05d}-*"))


def restore(tracker: Tracker, study: optuna.Study, trial: FrozenTrial) -> Path:
    """Have a trial's run made again from Optuna's record; returns the folder of its artifacts, which holds the config.

    Its model and its samples are not in that record; the run's tag `restored` says so.
    """
    record = restore_record(study, trial)
    record.tags["restored"] = "from Optuna's record; the checkpoint and the samples are lost"
    folder = tracker.folder(record)
    origin = {"study": study.study_name, "trial": trial.number}
    (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
    tracker.adopt(record, folder)
    return folder


def _alive(tracker: Tracker, study: optuna.Study, launch: str) -> bool:
    return launch == tracker.launch or is_alive(study.user_attrs.get(f"launch:{launch}"))
