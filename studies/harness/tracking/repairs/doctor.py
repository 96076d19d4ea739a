"""Compares Optuna's trials with MLflow's runs."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.launches import is_alive, lease_of
from studies.harness.store.trials import counts, dev_loss, trial_config
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.fields import STATUS, loss_key, run_dev_loss
from studies.harness.tracking.repairs.restore import (
    expected_files,
)
from studies.harness.tracking.sending.outbox import read_folder_name, trial_folders

FINAL = ("COMPLETE", "PRUNED", "FAIL")  # the tag `state` of a run whose trial has finished
PARENT = "mlflow.parentRunId"  # MLflow's tag with the id of the run to nest a run under


@dataclass(frozen=True)
class Violation:
    """One difference between the stores, or one trial that no launch will finish.

    Attributes:
        kind: name of the kind, in a few words.
        detail: the trial or run, and the difference.
        trial: number of the trial whose run the repair writes again, if it does.
        runs: ids of the MLflow runs that the repair deletes.
    """

    kind: str
    detail: str
    trial: int | None = None
    runs: tuple[str, ...] = ()


def check(study: optuna.Study, client: Any, experiment_id: str, outbox: Path) -> list[Violation]:
    """Compare every trial with its run, and every run with its trial.

    Args:
        study: the study.
        client: an MlflowClient.
        experiment_id: the study's experiment.
        outbox: folder of the study for files that are not sent yet.
    """
    trials = [t for t in study.get_trials(deepcopy=False) if "seed" in t.user_attrs]
    known = {trial.number for trial in trials}
    # Read before the runs: a run whose folder is gone is complete.
    sending = _numbers_being_sent(study, outbox)
    runs_of: dict[int, list[Any]] = defaultdict(list)
    other_runs = []
    every_run = find_runs(client, experiment_id)
    for run in every_run:
        number = run.data.tags.get("trial")
        if number is None:
            other_runs += _check_parent_run(study, run)
        elif int(number) in known:
            runs_of[int(number)].append(run)
        else:
            run_id = run.info.run_id
            detail = f"run {run_id} names trial {number}, which Optuna does not have"
            other_runs.append(Violation("run without trial", detail, runs=(run_id,)))

    found = []
    for trial in trials:
        if trial.number in sending:
            continue
        runs = runs_of[trial.number]
        surplus = _check_launches(study, runs)
        gone = {run_id for violation in surplus for run_id in violation.runs}
        left = [run for run in runs if run.info.run_id not in gone]
        found += [*surplus, *_check_trial(study, client, trial, left)]
    deleted = {run_id for violation in [*found, *other_runs] for run_id in violation.runs}
    found += _check_parents(study, every_run, deleted)
    return [*found, *other_runs, *_check_duplicates(trials), *_check_outbox(study, outbox)]


def _check_trial(
    study: optuna.Study, client: Any, trial: FrozenTrial, runs: list[Any]
) -> list[Violation]:
    name = f"trial {trial.number}"
    if trial.state == TrialState.WAITING:
        return []
    launch = trial.user_attrs.get("launch")
    if trial.state == TrialState.RUNNING:
        if _is_alive(study, launch):
            return []
        detail = f"{name} is RUNNING, but no process trains it"
        return [Violation("running trial of a dead launch", detail)]

    final = [run for run in runs if is_final(run)]
    if not final:
        if _is_alive(study, launch):
            return []  # the launch will send it
        detail = f"{name} is {trial.state.name}, but MLflow has no finished run of it"
        return [Violation("trial without run", detail, trial.number)]

    found = []
    if len(final) > 1:
        final.sort(key=lambda run: _completeness(study, client, trial, run), reverse=True)
        surplus = tuple(run.info.run_id for run in final[1:])
        detail = f"{name} has {len(final)} finished runs"
        found.append(Violation("more than one finished run", detail, runs=surplus))
    found += _check_open(study, trial, runs)
    run = final[0]
    if differences := _differences(study, trial, run):
        detail = f"{name}: {'; '.join(differences)}"
        found.append(Violation("run differs", detail, trial.number, (run.info.run_id,)))
    elif missing := _missing_artifacts(client, trial, run):
        detail = f"the run of {name} lacks {', '.join(missing)}"
        found.append(Violation("missing artifacts", detail))
    return found


def _check_launches(study: optuna.Study, runs: list[Any]) -> list[Violation]:
    """Find unfinished runs of a launch that has a finished run of the same trial, or a newer one.

    Several finished runs are compared by their content, in `_check_trial`.
    """
    found = []
    kept: dict[str, Any] = {}
    # Finished runs first; of the others, the newest first.
    for run in sorted(runs, key=lambda run: not is_final(run)):
        launch = run.data.tags.get("launch", "")
        if launch not in kept or is_final(run):
            kept.setdefault(launch, run)
        elif is_final(kept[launch]) or not _is_alive(study, launch):
            run_id, trial = run.info.run_id, run.data.tags["trial"]
            detail = f"trial {trial} has run {run_id} ({run.info.status}) next to another one"
            found.append(Violation("two runs of one launch", detail, runs=(run_id,)))
    return found


def is_final(run: Any) -> bool:
    return run.data.tags.get("state") in FINAL and run.info.status != "RUNNING"


def _check_parents(study: optuna.Study, runs: list[Any], deleted: set[str]) -> list[Violation]:
    """Find runs of trials whose parent run was deleted, except those that the repair deletes."""
    return [
        Violation(
            "deleted parent run",
            f"the parent of run {run.info.run_name} ({run.info.run_id}) was deleted",
        )
        for run in orphans(runs)
        if run.info.run_id not in deleted and not _is_alive(study, run.data.tags.get("launch"))
    ]


def orphans(runs: list[Any]) -> list[Any]:
    """Return the runs of trials whose parent run is not among these runs."""
    ids = {run.info.run_id for run in runs}
    return [
        run for run in runs if "trial" in run.data.tags and run.data.tags.get(PARENT) not in ids
    ]


def _completeness(
    study: optuna.Study, client: Any, trial: FrozenTrial, run: Any
) -> tuple[int, int, bool]:
    """Rank the runs of one trial: by their files, then by their evaluations, then by agreement."""
    files = len(client.list_artifacts(run.info.run_id))
    points = len(client.get_metric_history(run.info.run_id, loss_key(run.data.tags)))
    return files, points, not _differences(study, trial, run)


def _check_open(study: optuna.Study, trial: FrozenTrial, runs: list[Any]) -> list[Violation]:
    """Find runs of a finished trial that are still RUNNING although another run is finished."""
    found = []
    for run in runs:
        if run.info.status != "RUNNING":
            continue
        run_id, launch = run.info.run_id, run.data.tags.get("launch")
        if not _is_alive(study, launch):
            detail = f"run {run_id} of trial {trial.number} is RUNNING, but its launch has ended"
            found.append(Violation("open run of a dead launch", detail))
    return found


def _differences(study: optuna.Study, trial: FrozenTrial, run: Any) -> list[str]:
    """Return how a run differs from its trial, one sentence part for each value."""
    found = []
    state = trial.state.name
    run_state = run.data.tags.get("state")
    if run_state != state or run.info.status != STATUS[state]:
        found.append(f"state is {state} in Optuna, {run_state} ({run.info.status}) in MLflow")
    for key, value in trial_config(study, trial).model_dump().items():
        run_value = run.data.params.get(key)
        if run_value != str(value):
            found.append(f"{key} is {value} in Optuna, {run_value} in MLflow")

    loss = dev_loss(trial)
    run_loss = run_dev_loss(run)
    if trial.state != TrialState.FAIL and not _same_loss(loss, run_loss):
        found.append(f"dev_loss is {loss} in Optuna, {run_loss} in MLflow")
    return found


def _same_loss(first: float | None, second: float | None) -> bool:
    """Return whether two losses agree to 12 digits, or are both absent."""
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-12)


def _missing_artifacts(client: Any, trial: FrozenTrial, run: Any) -> list[str]:
    if "restored" in run.data.tags:
        return []  # the run's tag says that they are lost
    return sorted(
        expected_files(trial) - {item.path for item in client.list_artifacts(run.info.run_id)}
    )


def _check_parent_run(study: optuna.Study, run: Any) -> list[Violation]:
    if run.info.status != "RUNNING" or _is_alive(study, run.data.tags.get("launch", "")):
        return []
    detail = f"run {run.info.run_name} is RUNNING, but its launch has ended"
    return [Violation("open run of a dead launch", detail)]


def _check_duplicates(trials: list[FrozenTrial]) -> list[Violation]:
    seen = Counter(
        tuple(sorted(trial.params.items())) for trial in trials if counts(trial) and trial.params
    )
    return [
        Violation("parameters trained twice", f"{n} trials have {dict(params)}")
        for params, n in seen.items()
        if n > 1
    ]


def _check_outbox(study: optuna.Study, outbox: Path) -> list[Violation]:
    senders = [read_folder_name(folder)[2] for folder in trial_folders(outbox)]
    senders += [folder.name.removeprefix("parent-") for folder in outbox.glob("parent-*")]
    unsent = [sender for sender in senders if not _is_alive(study, sender)]
    if not unsent:
        return []
    detail = f"{outbox.absolute()} holds files of {len(unsent)} runs from launches that have ended"
    return [Violation("not sent to MLflow", detail)]


def _numbers_being_sent(study: optuna.Study, outbox: Path) -> set[int]:
    """Return the numbers of the finished trials that a living launch sends."""
    folders = [read_folder_name(folder) for folder in trial_folders(outbox)]
    alive = {sender for sender in {sender for *_, sender in folders} if _is_alive(study, sender)}
    return {number for number, _, sender in folders if sender in alive}


def _is_alive(study: optuna.Study, launch: str | None) -> bool:
    return is_alive(lease_of(study, launch))
