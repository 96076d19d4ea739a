"""Searches with a time limit, and the best trial trained to its end, in both stores."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from makemore.errors import UserError
from studies.harness.search.loop.queue import TrialQueue
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.trials import ranked, was_pruned_early
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.repairs.doctor import check

Launcher = Callable[..., int]


def last_json(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def violations(study: str) -> list[str]:
    client = connect(None)
    found = check(
        load_study(study, None), client, get_experiment(client, study), MLRUNS / "outbox" / study
    )
    return [f"{v.kind}: {v.detail}" for v in found]


class PrunesTheTwelfth(optuna.pruners.BasePruner):
    """Prunes the twelfth trial, which is the best one, at its ninth evaluation of ten."""

    def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
        return trial.number == 11 and len(trial.intermediate_values) == 9


@pytest.fixture
def time_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Move the clock an hour ahead once the pruner was asked 60 times."""
    asked = [0]
    monotonic = time.monotonic

    class Clock(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            asked[0] += 1
            return False

    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + (3600 if asked[0] >= 60 else 0))
    monkeypatch.setattr("studies.harness.search.launch.default_pruner", lambda base: Clock())


def test_trials_cut_off_by_the_limit_resume_at_the_next_launch(
    launch: Launcher, capsys: pytest.CaptureFixture[str], time_passes: None
) -> None:
    assert launch(trials=100_000, minutes=59.0, json=True) == 0
    first = last_json(capsys)
    trials = load_study("small", None).get_trials()
    waiting = [t.number for t in trials if t.state == TrialState.WAITING]
    assert first["timed_out"] and 0 < first["trials"] == len(trials) - len(waiting) < 100_000
    assert waiting and not any(t.state == TrialState.RUNNING for t in trials)
    assert violations("small") == []

    total = first["trials"] + len(waiting)
    assert launch(trials=total, minutes=59.0, json=True) == 0
    assert not last_json(capsys)["timed_out"]
    ended = load_study("small", None).get_trials()
    assert len(ended) == total and all(ended[number].state.is_finished() for number in waiting)


def waiting(study: str) -> list[int]:
    return [t.number for t in load_study(study, None).get_trials() if t.state == TrialState.WAITING]


@pytest.mark.parametrize("follow_up", [{"repeats": 2}, {"finish_best": True}])
def test_follow_ups_are_trained_before_trials_beyond_the_total(
    launch: Launcher, time_passes: None, follow_up: dict[str, Any]
) -> None:
    assert launch(trials=100_000, minutes=59.0) == 0
    before = load_study("small", None).get_trials()
    left = waiting("small")
    ended = len(before) - len(left)
    assert left

    assert launch(trials=ended, **follow_up) == 0
    assert waiting("small") == left
    after = load_study("small", None).get_trials()[len(before) :]
    best = ranked(before)
    # The best trial was not pruned, so there is nothing to finish.
    expected = [t.number for t in best[:3]] if "repeats" in follow_up else []
    assert (
        sorted(t.user_attrs["repeat_of"] for t in after) == sorted(2 * expected)
        and violations("small") == []
    )


def test_time_limit_does_not_apply_to_seed_repeats(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    passed = [0.0]
    monotonic = time.monotonic
    enqueue = TrialQueue.enqueue_repeats

    def enqueue_late(self: TrialQueue, cap: int | None) -> bool:
        passed[0] = 3600.0
        return enqueue(self, cap)

    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + passed[0])
    monkeypatch.setattr(TrialQueue, "enqueue_repeats", enqueue_late)

    assert launch(trials=4, minutes=59.0, repeats=2, prune=False, json=True) == 0
    repeats = [t for t in load_study("small", None).get_trials() if "repeat_of" in t.user_attrs]
    assert [t.state for t in repeats] == [TrialState.COMPLETE] * 6
    assert not last_json(capsys)["timed_out"] and violations("small") == []


def test_finished_trial_without_a_lower_loss_ranks_first() -> None:
    study = optuna.create_study()
    for state, marks in ((TrialState.PRUNED, {}), (TrialState.COMPLETE, {"finishes": 0})):
        attrs = {"summary": {"dev_loss": 2.0, "reason": ""}, "seed": 1, **marks}
        value = 2.0 if state == TrialState.COMPLETE else None
        study.add_trial(optuna.create_trial(state=state, value=value, user_attrs=attrs))

    assert [t.number for t in ranked(study.trials)] == [1, 0]
    diverged = optuna.create_trial(
        state=TrialState.PRUNED,
        user_attrs={"summary": {"dev_loss": 1.0, "reason": "diverged at step 9"}},
    )
    assert was_pruned_early(study.trials[0])
    assert not was_pruned_early(study.trials[1])
    assert not was_pruned_early(diverged)


def test_only_repeats_are_trained_after_the_time_limit(launch: Launcher, time_passes: None) -> None:
    assert launch(trials=100_000, minutes=59.0, repeats=2) == 0
    trials = load_study("small", None).get_trials()
    best = ranked(trials)[:3]
    repeats = [t for t in trials if "repeat_of" in t.user_attrs]
    assert {t.user_attrs["repeat_of"] for t in repeats} == {
        t.number for t in best if t.state == TrialState.COMPLETE
    }
    assert all(t.state == TrialState.COMPLETE for t in repeats)
    waiting = [t for t in trials if t.state == TrialState.WAITING]
    assert waiting and not any(t.state == TrialState.RUNNING for t in trials)
    assert violations("small") == []


def test_minutes_must_be_positive(launch: Launcher) -> None:
    for minutes in (0.0, -1.0, float("inf"), float("nan")):
        with pytest.raises(UserError, match="--minutes must be greater than 0"):
            launch(minutes=minutes)
    assert not Path("mlruns/optuna").exists()


def test_pruned_best_trial_is_trained_to_its_end(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        "studies.harness.search.launch.default_pruner", lambda base: PrunesTheTwelfth()
    )
    monkeypatch.setattr(sys, "argv", ["small.py"])  # the report proposes this script's command
    flags = {"trials": 12, "workers": 1, "steps": 200, "audit_pruning": 0.0}
    assert launch(**flags) == 0
    best = ranked(load_study("small", None).get_trials())[0]
    assert best.state == TrialState.PRUNED
    sentence = (
        "The best trial was pruned at step 180; the same command with --trials 12 --finish-best "
        "trains it to its end."
    )
    assert sentence in capsys.readouterr().out

    assert "--trials 12 --finish-best" in Path("mlruns/reports/small.html").read_text()

    assert launch(**flags, finish_best=True, json=True) == 0
    outcome = last_json(capsys)
    trials = load_study("small", None).get_trials()
    finished = trials[-1]
    assert (finished.user_attrs["finishes"], finished.state) == (best.number, TrialState.COMPLETE)
    assert (finished.params, finished.user_attrs["seed"]) == (best.params, best.user_attrs["seed"])
    # It repeats the same training and continues it. It is beyond the total, and the best trial.
    losses = finished.intermediate_values
    assert len(losses) == 10
    assert {step: losses[step] for step in best.intermediate_values} == best.intermediate_values
    assert (outcome["trials"], outcome["best_trial"]) == (12, finished.number)
    runs = find_runs(
        connect(None), get_experiment(connect(None), "small"), trial=str(finished.number)
    )
    assert [run.data.tags["finishes"] for run in runs] == [str(best.number)]
    assert violations("small") == []
    assert "--finish-best" not in Path("mlruns/reports/small.html").read_text()

    # Nothing is left to finish.
    assert launch(**flags, finish_best=True) == 0
    assert len(load_study("small", None).get_trials()) == len(trials)
