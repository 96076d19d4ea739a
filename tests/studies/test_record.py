"""The search for the lowest dev loss, run as a script."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from studies.harness.search.samplers.spread import SPREAD
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, trial_config

Record = Callable[..., Any]


@pytest.fixture
def record(names: Path, run_file: Any) -> Record:
    """Run the script on few words and few steps; with one worker the results are reproducible."""
    small = ("--names", names, "--steps", 40, "--workers", 1, "--device", "cpu", "--json")
    return lambda *flags: run_file("studies/record.py", *small, *flags)


def outcomes(study: str) -> list[tuple[Any, ...]]:
    trials = load_study(study, None).get_trials(deepcopy=False)
    return [(t.params, t.state, dev_loss(t), t.intermediate_values) for t in trials]


def test_two_launches_give_the_results_of_one(record: Record) -> None:
    total = SPREAD + 4  # the last four come from TPE
    assert record("--study", "whole", "--trials", total).code == 0
    assert record("--study", "parts", "--trials", SPREAD - 3).json["trials"] == SPREAD - 3
    assert record("--study", "parts", "--trials", total).json["trials"] == total

    assert outcomes("parts") == outcomes("whole")


def test_most_trials_stop_before_their_last_step(record: Record) -> None:
    assert record("--trials", 12).code == 0

    study = load_study("record", None)
    steps = [max(t.intermediate_values) for t in study.trials]
    # A third continues at 10%, 30% and 90% of the 40 steps.
    assert set(steps) <= {4, 12, 36, 40} and steps.count(4) >= 4 and steps.count(40) < 6
    assert all(
        (t.state == TrialState.COMPLETE) == (step == 40)
        for t, step in zip(study.trials, steps, strict=True)
    )
    # Twenty evaluations of a whole trial.
    assert len(study.trials[steps.index(40)].intermediate_values) == 20
    configs = [trial_config(study, trial) for trial in study.trials]
    assert {(c.optimizer, c.schedule, c.ema) for c in configs} == {("adamw", "cosine", 0.1)}
