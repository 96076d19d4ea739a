"""A PostgreSQL server that restarts or stays away while a study trains: a real, stopped server."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.conftest import finish, start, wait_for
from tests.studies.conftest import (
    ENDED,
    PASSWORD,
    assert_whole,
    start_study,
    states_of,
)
from tests.studies.faults.conftest import Database

pytestmark = pytest.mark.server
FLAGS = ("--trials", 6, "--steps", 10_000)


def some_trials_ended(url: str) -> bool:
    return sum(state in ENDED for state in states_of("mlp", url)) >= 2


def test_long_outage_is_one_sentence_and_study_resumes(database: Database, names: Path) -> None:
    patience = {"studies.harness.store.database.RIDE_OUT": 3}
    process = start_study(names, *FLAGS, storage=database.url, patches=patience)
    wait_for(lambda: some_trials_ended(database.url))
    database.stop()
    ran = finish(process)

    assert ran.code == 1
    assert "Traceback" not in ran.err
    assert "The storage does not answer (" in ran.err
    assert ran.err.splitlines()[-1].startswith("storage postgresql://tester:***@127.0.0.1:")
    assert ran.err.endswith("Nothing stored is lost; run the same command again to continue.\n")
    assert PASSWORD not in ran.out + ran.err

    ran = finish(start_study(names, *FLAGS, storage=database.url))
    assert ran.code == 2
    assert "cannot be opened: " in ran.err.splitlines()[-1]

    database.start()
    before = states_of("mlp", database.url)
    assert TrialState.RUNNING in before
    ran = finish(start_study(names, *FLAGS, storage=database.url))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 6, database.url)


@pytest.mark.parametrize("seconds", [0, pytest.param(20, marks=pytest.mark.slow)])
def test_study_rides_out_a_restart(database: Database, names: Path, seconds: float) -> None:
    process = start_study(names, *FLAGS, storage=database.url)
    wait_for(lambda: some_trials_ended(database.url))
    database.stop()
    time.sleep(seconds)
    database.start()
    ran = finish(process)

    assert ran.code == 0, ran.err
    assert PASSWORD not in ran.out + ran.err
    assert_whole("mlp", 6, database.url)


def test_outage_of_a_reading_script_is_one_sentence(database: Database, names: Path) -> None:
    assert finish(start_study(names, "--trials", 1, "--steps", 100, storage=database.url)).code == 0
    database.stop()

    ran = finish(start("studies/compare.py", "mlp", "--storage", database.url))

    assert ran.code == 2
    assert ran.err.startswith("storage postgresql://tester:***@127.0.0.1:")
    assert len(ran.err.splitlines()) == 1
