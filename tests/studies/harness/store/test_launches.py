"""Launches: signs of life, and the requeue of trials whose launch died."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from studies.harness.store import launches
from studies.harness.store.launches import STALE, Launch, is_alive, requeue, requeue_dead, this_host
from tests.conftest import ROOT

PROGRAM = """
import time, optuna
from studies.harness.store.launches import Launch
launch = Launch.begin(optuna.create_study())
print(launch._lock.lock_file, flush=True)
time.sleep(60)
"""


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> optuna.Study:
    monkeypatch.chdir(tmp_path)
    return optuna.create_study(storage=optuna.storages.InMemoryStorage())


def lease_of(launch: Launch) -> dict[str, Any]:
    lease: dict[str, Any] = launch.study.user_attrs[f"launch:{launch.id}"]
    return lease


def running_trial(study: optuna.Study, launch: str) -> int:
    """Start a trial of a launch, and return its number."""
    trial = study.ask()
    trial.set_user_attr("launch", launch)
    return trial.number


def test_launch_is_alive_until_it_ends(study: optuna.Study) -> None:
    launch = Launch.begin(study)
    lease = lease_of(launch)
    assert is_alive(lease)

    launch.end()

    assert not is_alive(lease)
    assert not is_alive(None)


def test_killed_launch_is_dead(study: optuna.Study) -> None:
    command = [sys.executable, "-c", PROGRAM]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment
    ) as process:
        assert process.stdout
        lock = process.stdout.readline().strip()
        lease = {"host": this_host(), "lock": lock, "seen": time.time()}
        assert is_alive(lease)
        os.kill(process.pid, signal.SIGKILL)

    assert not is_alive(lease)
    # Its lock file is removed.
    assert not Path(lock).exists()


@pytest.mark.parametrize(("silence", "alive"), [(0, True), (STALE - 5, True), (STALE + 5, False)])
def test_launch_on_another_host_lives_by_its_heartbeat(silence: float, alive: bool) -> None:
    lease = {"host": "another", "lock": "/absent", "seen": time.time() - silence}

    assert is_alive(lease) is alive


def test_heart_beats_while_the_main_thread_is_busy(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "HEARTBEAT", 0.02)
    launch = Launch.begin(study)
    first = lease_of(launch)["seen"]
    time.sleep(0.3)
    later = lease_of(launch)["seen"]
    launch.end()
    time.sleep(0.1)
    last = lease_of(launch)["seen"]
    time.sleep(0.3)

    assert later > first
    assert lease_of(launch)["seen"] == last


def test_heartbeat_survives_an_outage_of_the_storage(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launches, "HEARTBEAT", 0.02)
    launch = Launch.begin(study)
    write = study.set_user_attr

    def fail(key: str, value: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(study, "set_user_attr", fail)
    time.sleep(0.2)
    outage = lease_of(launch)["seen"]
    monkeypatch.setattr(study, "set_user_attr", write)
    time.sleep(0.3)

    assert lease_of(launch)["seen"] > outage
    launch.end()


def test_requeued_trial_waits_with_its_number(study: optuna.Study) -> None:
    trial = study.ask()

    requeue(study, trial._trial_id)

    assert study.trials[0].state == TrialState.WAITING
    assert study.ask().number == 0


def test_only_trials_of_dead_launches_are_requeued(study: optuna.Study) -> None:
    alive = Launch.begin(study)
    ended = Launch.begin(study)
    numbers = {name: running_trial(study, name) for name in (alive.id, ended.id, "unknown", "own")}
    ended.end()

    requeued = requeue_dead(study, exclude="own")

    assert [trial.number for trial in requeued] == [numbers[ended.id], numbers["unknown"]]
    states = [trial.state.name for trial in study.trials]
    assert states == ["RUNNING", "WAITING", "WAITING", "RUNNING"]
    alive.end()


def test_launch_knows_that_others_could_take_it_for_dead(
    study: optuna.Study, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = Launch.begin(study)
    assert not launch.has_lapsed()

    now = time.time()
    monkeypatch.setattr(launches.time, "time", lambda: now + STALE + 1)  # the machine slept

    assert launch.has_lapsed()
    launch._beat()
    assert launch.has_lapsed()
    launch.end()
