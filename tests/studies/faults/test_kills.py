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
    artifacts_of,
    assert_whole,
    outcomes_of,
    runs_of,
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
    database = MLRUNS / "mlflow.db"
    new = MLRUNS / ".mlflow.db.new"
    flags = ("--trials", 2, "--steps", 1000)
    # The new file exists for some milliseconds only, so a kill may come too late.
    for _ in range(20):
        database.unlink(missing_ok=True)
        process = start_study(names, *flags)
        while not (new.exists() or database.exists() or process.poll() is not None):
            time.sleep(0.0005)
        os.killpg(process.pid, signal.SIGKILL)
        assert finish(process).code == -signal.SIGKILL
        if new.exists():
            break
    assert new.exists()
    assert not database.exists()

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


def test_parent_run_of_a_launch_killed_at_its_end_has_a_note(names: Path) -> None:
    flags = ("--trials", 2, "--steps", 500)
    process = start_study(names, *flags)
    outbox = MLRUNS / "outbox" / "mlp"
    # The launch has written its report and has not sent it yet.
    while not list(outbox.glob("parent-*")) and process.poll() is None:
        time.sleep(0.001)
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)

    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    parents = [run for run in runs_of("mlp") if "trial" not in run.data.tags]
    assert [run.info.status for run in parents] == ["FINISHED", "FINISHED"]
    for run in parents:
        assert run.data.tags["mlflow.note.content"].startswith("## mlp: dev loss ")
        assert {"report.html", "note.md"} <= artifacts_of(run)
    assert_whole("mlp", 2)


def test_parent_run_of_a_launch_killed_earlier_says_why_it_has_no_report(names: Path) -> None:
    flags = ("--trials", 3, "--steps", 2 * STEPS_A_SECOND)
    process = start_study(names, *flags)
    wait_for(lambda: [run for run in runs_of("mlp") if "trial" in run.data.tags])
    os.killpg(process.pid, signal.SIGKILL)
    finish(process)

    assert finish(start_study(names, "--trials", 3, "--steps", 2 * STEPS_A_SECOND)).code == 0

    last, first = [run for run in runs_of("mlp") if "trial" not in run.data.tags]
    assert first.data.tags["mlflow.note.content"].startswith("This launch ended before it wrote")
    assert first.info.status == "KILLED"
    assert last.data.tags["mlflow.note.content"].startswith("## mlp: dev loss ")


def test_entries_of_others_in_the_outbox_are_left_alone(launch: Launcher) -> None:
    outbox = MLRUNS / "outbox" / "small"
    for folder in ("1x-y", "notes-of-mine"):
        (outbox / folder).mkdir(parents=True)
    for file in ("12-file", "drop-mine", "parent"):
        (outbox / file).touch()

    assert launch(trials=2) == 0

    assert_whole("small", 2)
    left = {path.name for path in outbox.iterdir()}
    assert left >= {"1x-y", "notes-of-mine", "12-file", "drop-mine", "parent"}
