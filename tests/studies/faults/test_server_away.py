"""An MLflow server that stops while a study trains: a real server, really killed."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from tests.conftest import finish, start, wait_for
from tests.servers import MlflowServer
from tests.studies.conftest import ENDED, assert_whole, start_study, states_of

pytestmark = pytest.mark.server
DOCTOR = "studies/doctor.py"


def a_trial_ended() -> bool:
    return any(state in ENDED for state in states_of("mlp"))


def test_ten_seconds_without_server_lose_nothing(server: MlflowServer, names: Path) -> None:
    process = start_study(names, "--trials", 12, "--steps", 20_000, "--tracking-uri", server.uri)
    wait_for(a_trial_ended)
    server.kill()
    time.sleep(10)
    server.start()
    ran = finish(process)

    assert ran.code == 0, ran.err
    assert_whole("mlp", 12, uri=server.uri)


def test_doctor_sends_what_a_lost_server_missed(server: MlflowServer, names: Path) -> None:
    store = ("--tracking-uri", server.uri)
    process = start_study(names, "--trials", 8, "--steps", 5000, "--patience", 2, *store)
    wait_for(a_trial_ended)
    server.kill()
    ran = finish(process)

    # The study is complete; it reports the missing runs and how to send them.
    assert ran.code == 3, ran.err
    assert "MLflow does not have" in ran.err
    assert "studies/doctor.py mlp" in ran.err
    assert sum(state in ENDED for state in states_of("mlp")) == 8

    server.start()
    ran = finish(start(DOCTOR, "mlp", *store))
    assert ran.code == 1
    assert "not sent to MLflow" in ran.out

    ran = finish(start(DOCTOR, "mlp", "--repair", *store))
    assert ran.code == 0, ran.out + ran.err
    assert_whole("mlp", 8, uri=server.uri)
