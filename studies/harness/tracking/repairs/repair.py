"""Repairs what the doctor finds: requeues trials, and writes, nests or deletes runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna

from studies.harness.store.launches import Launch, requeue_dead
from studies.harness.store.locks import exclusive
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.repairs.doctor import PARENT, Violation, is_final, orphans
from studies.harness.tracking.repairs.recovery import recover
from studies.harness.tracking.repairs.restore import (
    any_folder,
    files_on_disk,
    restore,
)
from studies.harness.tracking.sending.tracker import Tracker

PATIENCE = 30.0  # seconds without progress after which a repair gives up


def repair(study: optuna.Study, tracker: Tracker, violations: list[Violation]) -> None:
    """Requeue dead trials, write missing or different runs again, and delete surplus runs.

    Args:
        study: the study.
        tracker: a tracker that has not begun; it gets the runs that must be sent.
        violations: from `check`.
    """
    with exclusive(f"ask-{study.study_name}", study._storage):
        requeue_dead(study)
    recover(tracker, study)
    files = files_on_disk(tracker, study)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for violation in violations:
        if violation.trial is not None and not any_folder(tracker, violation.trial):
            # The new run keeps the files of the run that it replaces.
            restore(tracker, study, trials[violation.trial], files, violation.runs)
        for run_id in violation.runs:
            tracker.client.delete_run(run_id)


def repair_and_send(
    study: optuna.Study,
    client: Any,
    experiment_id: str,
    outbox: Path,
    violations: list[Violation],
) -> None:
    """Repair the stores as a launch of the study, and send the result to MLflow."""
    launch = Launch.begin(study)
    dataset = {
        "name": study.user_attrs["data"],
        "sha256": study.user_attrs["data_sha256"],
        "source": "unknown",
    }
    tracker = Tracker(client, experiment_id, outbox, launch.id, dataset)
    try:
        repair(study, tracker, violations)
        tracker.begin(f"repair {launch.id}", {"study": study.study_name, "launch": launch.id}, {})
        tracker.finish_parent("FINISHED")
        tracker.close(PATIENCE)
        _nest_orphans(client, experiment_id, tracker.parent_id)
    finally:
        launch.end()


def _nest_orphans(client: Any, experiment_id: str, parent_id: str) -> None:
    """Nest each run whose parent was deleted under the run it repeats, or under `parent_id`."""
    runs = find_runs(client, experiment_id)
    final = {run.data.tags.get("trial"): run.info.run_id for run in runs if is_final(run)}
    for run in orphans(runs):
        repeated = run.data.tags.get("repeat_of")
        nested_under = final.get(repeated, parent_id) if repeated else parent_id
        client.set_tag(run.info.run_id, PARENT, nested_under)
