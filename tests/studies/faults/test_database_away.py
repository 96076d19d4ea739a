"""A PostgreSQL server that restarts or stays away while a study trains: a real, stopped server."""

from __future__ import annotations

import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from optuna.trial import TrialState

from tests.conftest import finish, start, wait_for
from tests.studies.conftest import (
    ENDED,
    PASSWORD,
    assert_whole,
    find_initdb,
    postgres_server,
    start_study,
    states_of,
)

pytestmark = pytest.mark.server
FLAGS = ("--trials", 6, "--steps", 10_000)


class Database:
    """A PostgreSQL server of this test, which can be stopped and started again."""

    def __init__(self, folder: Path, initdb: Path, url: str) -> None:
        self.url = f"{url}/postgres"
        self._folder = folder
        self._pg_ctl = str(initdb.with_name("pg_ctl"))
        self._options = (folder / "data" / "postmaster.opts").read_text().split('"')[1::2]

    def stop(self) -> None:
        self._run("-m", "fast", "stop")

    def start(self) -> None:
        self._run("-o", " ".join(self._options), "-l", f"{self._folder}/log", "-w", "start")

    def _run(self, *arguments: str) -> None:
        user = "postgres" if os.getuid() == 0 else None
        command = [self._pg_ctl, "-D", f"{self._folder}/data", *arguments]
        subprocess.run(command, user=user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def database() -> Iterator[Database]:
    initdb = find_initdb()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        with postgres_server(Path(folder), initdb) as url:
            database = Database(Path(folder), initdb, url)
            yield database
            if not (Path(folder) / "data" / "postmaster.pid").exists():
                database.start()  # `postgres_server` stops it


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
