"""Optuna's store held against MLflow's: what differs, and how it is mended."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.launches import is_alive, requeue_dead
from studies.harness.store.trials import counts, dev_loss, trial_config
from studies.harness.tracking.client import find_runs
from studies.harness.tracking.fields import STATUS
from studies.harness.tracking.recovery import any_folder, recover, restore
from studies.harness.tracking.tracker import Tracker

FINAL = ("COMPLETE", "PRUNED", "FAIL")


@dataclass(frozen=True)
class Violation:
    """One thing that is not as it should be.

    Attributes:
        kind: a few words that name the kind, the same for all of a kind.
        detail: which trial or run, and what was found.
        trial: number of the trial whose run is to be written anew, if that mends it.
        runs: ids of MLflow runs to be deleted, if that mends it.
    """

    kind: str
    detail: str
    trial: int | None = None
    runs: tuple[str, ...] = ()


def check(study: optuna.Study, client: Any, experiment_id: str, outbox: Path) -> list[Violation]:
    """Hold every trial against its run, and every run against its trial."""
    trials = [t for t in study.get_trials(deepcopy=False) if "seed" in t.user_attrs]
    by_trial: dict[int, list[Any]] = defaultdict(list)
    strays = []
    known = {trial.number for trial in trials}
    for run in find_runs(client, experiment_id):
        number = run.data.tags.get("trial")
        if number is None:
            strays += _check_open_run(study, run)
        elif int(number) not in known:
            strays.append(
                Violation(
                    "run without trial",
                    f"run {run.info.run_id} says trial {number}",
                    runs=(run.info.run_id,),
                )
            )
        else:
            by_trial[int(number)].append(run)
    found = [
        v for trial in trials for v in _check_trial(study, client, trial, by_trial[trial.number])
    ]
    return [*found, *strays, *_check_duplicates(trials), *_check_outbox(study, outbox)]


def repair(study: optuna.Study, tracker: Tracker, violations: list[Violation]) -> None:
    """Mend what can be mended; the tracker, not begun yet, is left with what is to be sent."""
    requeue_dead(study)
    recover(tracker, study)
    trials = {trial.number: trial for trial in study.get_trials(deepcopy=False)}
    for violation in violations:
        if violation.trial is not None and not any_folder(tracker, violation.trial):
            folder = restore(tracker, study, trials[violation.trial])
            for (
                run_id
            ) in violation.runs:  # what the run to be replaced has of files goes to the new one
                tracker.client.download_artifacts(run_id, "", str(folder))
        for run_id in violation.runs:
            tracker.client.delete_run(run_id)


def _check_trial(
    study: optuna.Study, client: Any, trial: FrozenTrial, runs: list[Any]
) -> list[Violation]:
    name = f"trial {trial.number}"
    if trial.state == TrialState.RUNNING:
        alive = is_alive(study.user_attrs.get(f"launch:{trial.user_attrs.get('launch')}"))
        return [] if alive else [Violation("running, but its launch is dead", name)]
    if trial.state == TrialState.WAITING:
        return []
    final = [
        run for run in runs if run.data.tags.get("state") in FINAL and run.info.status != "RUNNING"
    ]
    if not final and is_alive(study.user_attrs.get(f"launch:{trial.user_attrs.get('launch')}")):
        return []  # its launch is about to send it
    if not final:
        return [Violation("trial without run", f"{name} is {trial.state.name}", trial.number)]
    found = []
    if len(final) > 1:
        surplus = tuple(run.info.run_id for run in final[1:])
        found.append(
            Violation("more than one finished run", f"{name} has {len(final)}", runs=surplus)
        )
    if differences := _differences(study, trial, final[0]):
        found.append(
            Violation(
                "run differs",
                f"{name}: {'; '.join(differences)}",
                trial.number,
                (final[0].info.run_id,),
            )
        )
    elif missing := _missing_artifacts(client, trial, final[0]):
        found.append(Violation("missing artifacts", f"{name}: {', '.join(missing)}"))
    return found


def _differences(study: optuna.Study, trial: FrozenTrial, run: Any) -> list[str]:
    found = []
    state = run.data.tags.get("state")
    if state != trial.state.name or run.info.status != STATUS[trial.state.name]:
        found.append(f"state {trial.state.name}, run {state} and {run.info.status}")
    for key, value in trial_config(study, trial).model_dump().items():
        if run.data.params.get(key) != str(value):
            found.append(f"{key} {value}, run {run.data.params.get(key)}")
    ours, theirs = dev_loss(trial), run.data.metrics.get("dev_loss")
    if (ours is None) != (theirs is None) or (
        ours is not None and not math.isclose(ours, theirs, rel_tol=1e-12)
    ):
        if trial.state != TrialState.FAIL:
            found.append(f"dev_loss {ours}, run {theirs}")
    return found


def _missing_artifacts(client: Any, trial: FrozenTrial, run: Any) -> list[str]:
    if "restored" in run.data.tags:
        return []  # it is known, and said on the run, that they are lost
    expected = {"config.toml"} | ({"samples.txt"} if dev_loss(trial) is not None else set())
    return sorted(expected - {item.path for item in client.list_artifacts(run.info.run_id)})


def _check_open_run(study: optuna.Study, run: Any) -> list[Violation]:
    launch = run.data.tags.get("launch", "")
    if run.info.status != "RUNNING" or is_alive(study.user_attrs.get(f"launch:{launch}")):
        return []
    return [Violation("open run of a dead launch", f"run {run.info.run_name}")]


def _check_duplicates(trials: list[FrozenTrial]) -> list[Violation]:
    seen = Counter(
        tuple(sorted(trial.params.items())) for trial in trials if counts(trial) and trial.params
    )
    return [
        Violation("parameters trained twice", f"{dict(params)}: {n} trials")
        for params, n in seen.items()
        if n > 1
    ]


def _check_outbox(study: optuna.Study, outbox: Path) -> list[Violation]:
    waiting = [folder.name for folder in sorted(outbox.glob("[!.]*-*")) if folder.is_dir()]
    dead = [
        n for n in waiting if not is_alive(study.user_attrs.get(f"launch:{n.split('-', 1)[1]}"))
    ]
    return [Violation("not sent to MLflow", f"{len(dead)} folders in {outbox}")] if dead else []
