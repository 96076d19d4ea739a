"""Launches that are killed with SIGKILL: the next launch continues, and no trial is lost."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from studies.harness.store.paths import MLRUNS
from tests.conftest import finish, wait_for
from tests.studies.conftest import (
    PASSWORD,
    Launcher,
    assert_whole,
    outcomes_of,
    start_study,
    states_of,
)

STEPS_A_SECOND = 14_000  # about the speed of a slot with a model of the default study


def test_kill_loses_no_trial(names: Path) -> None:
    flags = ("--trials", 4, "--steps", STEPS_A_SECOND)
    process = start_study(names, *flags)
    wait_for(lambda: TrialState.RUNNING in states_of("mlp"))
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL

    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 4)


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_many_kills_lose_no_trial(names: Path, storage: str | None) -> None:
    kills, trials = (20, 40) if storage is None else (5, 10)
    flags = ("--trials", trials, "--steps", STEPS_A_SECOND)
    moments = random.Random(5)
    for _ in range(kills):
        process = start_study(names, *flags, storage=storage)
        time.sleep(moments.uniform(0.5, 5.0))
        os.killpg(process.pid, signal.SIGKILL)
        # Each kill hit a launch that still had trials to train.
        assert finish(process).code == -signal.SIGKILL

    ran = finish(start_study(names, *flags, "--json", storage=storage), 240)

    assert ran.code == 0, ran.err
    assert_whole("mlp", trials, storage)
    assert PASSWORD not in ran.out + ran.err


def test_kill_leaves_no_partial_database(names: Path) -> None:
    Path("mlruns/mlflow.db").unlink()
    new = MLRUNS / ".mlflow.db.new"
    flags = ("--trials", 2, "--steps", 1000)
    process = start_study(names, *flags)
    wait_for(lambda: new.exists() and new.stat().st_size > 0)
    os.killpg(process.pid, signal.SIGKILL)
    assert finish(process).code == -signal.SIGKILL
    assert new.exists()

    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 2)
    assert not list(MLRUNS.glob(".mlflow.db*"))


def test_torn_last_line_is_ignored(launch: Launcher) -> None:
    launch(trials=2)
    before = outcomes_of("small")
    with (MLRUNS / "optuna" / "small.journal").open("ab") as file:
        file.write(b'{"op_code":4,"worker_id":"x","tri')
    assert outcomes_of("small") == before

    launch(trials=4)

    assert_whole("small", 4)
