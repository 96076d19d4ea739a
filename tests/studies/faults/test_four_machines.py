"""Four launches on four machines: one PostgreSQL and one MLflow server, and four folders.

The machines are processes that report different host names. Their launches start at the same
moment on an empty database. One is killed, and the database restarts.
"""

from __future__ import annotations

import os
import shutil
import signal
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from studies.harness.store.trials import counts
from tests.conftest import finish, start, wait_for
from tests.servers import MlflowServer
from tests.studies.conftest import ENDED, start_study, states_of, trials_of
from tests.studies.faults.conftest import Database

pytestmark = [pytest.mark.server, pytest.mark.slow]
TOTAL = 60


def n_ended(url: str) -> int:
    return sum(state in ENDED for state in states_of("mlp", url))


def test_four_machines_share_a_study(
    database: Database, server: MlflowServer, names: Path, workdir: Path
) -> None:
    stores = ("--storage", database.url, "--tracking-uri", server.uri)
    flags = ("--trials", TOTAL, "--steps", 3000, "--workers", 1, *stores)

    def machine(number: int) -> dict[str, object]:
        """Return a host name, and a heartbeat that misses a dead machine within seconds."""
        return {
            "socket.gethostname": f"machine-{number}",
            "studies.harness.store.launches.HEARTBEAT": 1.0,
            "studies.harness.store.launches.STALE": 8.0,
        }

    folders = [workdir / f"machine-{number}" for number in range(4)]
    for folder in folders:
        folder.mkdir()
    launches = [
        start_study(names, *flags, folder=folder, patches=machine(number))
        for number, folder in enumerate(folders)
    ]
    wait_for(lambda: n_ended(database.url) >= 8)
    os.killpg(launches[0].pid, signal.SIGKILL)
    launches[0].communicate()
    shutil.rmtree(folders[0])  # its disk is lost too
    wait_for(lambda: n_ended(database.url) >= 20)
    database.stop()
    time.sleep(3)
    database.start()
    for process in launches[1:]:
        ran = finish(process, timeout=180)
        assert ran.code == 0, ran.err
        assert "Traceback" not in ran.err and "SELECT" not in ran.err

    trials = trials_of("mlp", database.url)
    assert sum(counts(trial) for trial in trials) == TOTAL
    assert {trial.state for trial in trials if counts(trial)} <= set(ENDED)
    assert TrialState.RUNNING not in {trial.state for trial in trials}
    assert len({trial.user_attrs["launch"] for trial in trials if counts(trial)}) == 4

    # The runs that the dead machine did not send are written again from Optuna's record.
    doctor = ("studies/doctor.py", "mlp", *stores)
    another = {"folder": folders[1], "patches": machine(1)}
    time.sleep(8)  # the dead launch is silent for long enough
    finish(start(*doctor, "--repair", **another), timeout=180)  # type: ignore[arg-type]
    ran = finish(start(*doctor, **another))  # type: ignore[arg-type]
    assert ran.code == 0, ran.out + ran.err
