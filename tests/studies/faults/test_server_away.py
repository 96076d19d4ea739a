"""An MLflow server that stops while a study trains: a real server, really killed."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import finish, free_port, start, wait_for
from tests.studies.conftest import ENDED, assert_whole, start_study, states_of

pytestmark = pytest.mark.server
DOCTOR = "studies/doctor.py"


class Server:
    """An MLflow server on 127.0.0.1 that can be killed and started again on its store."""

    def __init__(self) -> None:
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        store = Path("server").absolute()
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{store}/mlflow.db"]
        command += ["--artifacts-destination", f"{store}/artifacts"]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (store / "log").open("ab") as log:
            self.process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait_for(self._answers)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.uri}/health", timeout=1) as answer:
                return bool(answer.status == 200)
        except OSError:
            return False

    def kill(self) -> None:
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            self.process = None


@pytest.fixture
def server(workdir: Path, mlflow_template: Path) -> Iterator[Server]:
    Path("server").mkdir()
    shutil.copy(mlflow_template, "server/mlflow.db")
    server = Server()
    server.start()
    yield server
    server.kill()


def a_trial_ended() -> bool:
    return any(state in ENDED for state in states_of("mlp"))


def test_ten_seconds_without_server_lose_nothing(server: Server, names: Path) -> None:
    process = start_study(names, "--trials", 12, "--steps", 20_000, "--tracking-uri", server.uri)
    wait_for(a_trial_ended)
    server.kill()
    time.sleep(10)
    server.start()
    ran = finish(process)

    assert ran.code == 0, ran.err
    assert_whole("mlp", 12, uri=server.uri)


def test_doctor_sends_what_a_lost_server_missed(server: Server, names: Path) -> None:
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
