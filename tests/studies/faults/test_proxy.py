"""A proxy that loses a server's answers, or answers 200 itself: nothing is lost or doubled."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from studies.harness.tracking.client import connect
from tests.conftest import finish
from tests.studies.conftest import Launcher, assert_whole, runs_of, start_study
from tests.studies.faults.proxy import DROP, EMPTY, ERROR, FORWARD, HTML, LOSE, Choose, proxy
from tests.studies.faults.test_server_away import Server

pytestmark = pytest.mark.server
CREATE = "/api/2.0/mlflow/runs/create"
FILES = {"config.toml", "model.safetensors", "samples.txt"}


@pytest.fixture
def server(workdir: Path, mlflow_template: Path) -> Iterator[Server]:
    Path("server").mkdir()
    shutil.copy(mlflow_template, "server/mlflow.db")
    server = Server()
    server.start()
    yield server
    server.kill()


def assert_each_run_once(server: Server, trials: int) -> None:
    """Assert that each trial and the launch have one run in the server, with all files."""
    assert_whole("small", trials, uri=server.uri)
    runs = runs_of("small", server.uri)
    assert len(runs) == trials + 1
    client = connect(server.uri)
    for run in runs:
        if "trial" in run.data.tags:
            found = {item.path for item in client.list_artifacts(run.info.run_id)}
            assert found == FILES, run.data.tags["trial"]


def test_lost_answers_double_no_run(server: Server, launch: Launcher) -> None:
    dice = random.Random(1)

    def choose(method: str, path: str, times: int) -> str:
        if path == CREATE and times <= 3:  # the first is that of the parent run
            return LOSE
        return LOSE if dice.random() < 0.12 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=12, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 12)


@pytest.mark.parametrize("fault", [DROP, ERROR])
def test_failed_first_calls_do_not_end_a_launch(
    server: Server, launch: Launcher, fault: str
) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return fault if times == 1 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=2, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 2)


@pytest.mark.parametrize("fault", [DROP, ERROR])
def test_server_that_fails_after_its_first_answer_is_one_sentence(
    server: Server, names: Path, fault: str
) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return FORWARD if "experiments" in path else fault

    with proxy(server.port, choose) as uri:
        ran = finish(start_study(names, "--trials", 1, "--tracking-uri", uri))

    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(f"MLflow at {uri} failed: ")
    assert "Traceback" not in ran.err


def one_of_five(answer: str) -> Choose:
    """Answer a fifth of the requests that write in the server's place, and swallow a file early."""
    dice = random.Random(1)

    def choose(method: str, path: str, times: int) -> str:
        if method == "GET" or "search" in path:
            return FORWARD
        return answer if (method == "PUT" and times == 2) or dice.random() < 0.2 else FORWARD

    return choose


@pytest.mark.parametrize("answer", [HTML, EMPTY])
def test_false_answers_lose_nothing(server: Server, launch: Launcher, answer: str) -> None:
    with proxy(server.port, one_of_five(answer)) as uri:
        code = launch(trials=6, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 6)


def test_files_that_a_proxy_swallowed_stay_in_the_outbox(server: Server, launch: Launcher) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return HTML if method == "PUT" else FORWARD

    with proxy(server.port, choose) as uri:
        assert launch(trials=2, prune=False, tracking_uri=uri, patience=3) == 3
        folders = list(Path("mlruns/outbox/small").glob("0*"))
        assert [len(list(folder.iterdir())) for folder in folders] == [3, 3]

    assert launch(trials=2, prune=False, tracking_uri=server.uri) == 0
    assert_whole("small", 2, uri=server.uri)
