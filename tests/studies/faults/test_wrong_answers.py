"""An MLflow server whose answers are lost, or given by a proxy: nothing is lost or doubled."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from studies.harness.tracking.connection.connect import connect
from tests.conftest import finish
from tests.servers import DROP, EMPTY, FORWARD, HTML, LOSE, Choose, MlflowServer, proxy
from tests.studies.conftest import Launcher, assert_whole, runs_of, start_study

pytestmark = pytest.mark.server
CREATE = "/api/2.0/mlflow/runs/create"
SEARCH = "/api/2.0/mlflow/runs/search"
FILES = {"config.toml", "model.safetensors", "samples.txt"}


def assert_each_run_once(server: MlflowServer, trials: int) -> None:
    """Assert that each trial and the launch have one run in the server, with all files."""
    assert_whole("small", trials, uri=server.uri)
    runs = runs_of("small", server.uri)
    assert len(runs) == trials + 1
    client = connect(server.uri)
    for run in runs:
        if "trial" in run.data.tags:
            found = {item.path for item in client.list_artifacts(run.info.run_id)}
            assert found == FILES, run.data.tags["trial"]


def test_lost_answers_double_no_run(server: MlflowServer, launch: Launcher) -> None:
    dice = random.Random(1)

    def choose(method: str, path: str, times: int) -> str:
        if path == CREATE and times <= 3:  # the first is that of the parent run
            return LOSE
        return LOSE if dice.random() < 0.12 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=12, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 12)


@pytest.mark.parametrize("fault", [DROP, "500"])
def test_failed_first_calls_do_not_end_a_launch(
    server: MlflowServer, launch: Launcher, fault: str
) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return fault if times == 1 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=2, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 2)


@pytest.mark.parametrize("fault", [DROP, "500"])
def test_server_that_fails_after_its_first_answer_is_one_sentence(
    server: MlflowServer, names: Path, fault: str
) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return FORWARD if "experiments" in path else fault

    with proxy(server.port, choose) as uri:
        ran = finish(start_study(names, "--trials", 1, "--tracking-uri", uri))

    assert ran.code == 1
    assert ran.err.splitlines()[-1].startswith(f"MLflow at {uri} failed: ")
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("path", "fault"),
    [("experiments/get-by-name", LOSE), ("set-experiment-tag", "503"), ("runs/create", EMPTY)],
)
def test_ten_wrong_answers_at_the_start_are_ridden_out(
    server: MlflowServer, launch: Launcher, path: str, fault: str
) -> None:
    def choose(method: str, asked: str, times: int) -> str:
        return fault if path in asked and times <= 10 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=2, prune=False, tracking_uri=uri)

    assert code == 0
    assert_each_run_once(server, 2)


def one_of_five(answer: str) -> Choose:
    """Answer a fifth of the requests that write in the server's place, and swallow a file early."""
    dice = random.Random(1)

    def choose(method: str, path: str, times: int) -> str:
        if method == "GET" or "search" in path:
            return FORWARD
        return answer if (method == "PUT" and times == 2) or dice.random() < 0.2 else FORWARD

    return choose


@pytest.mark.parametrize("answer", [HTML, EMPTY])
def test_false_answers_lose_nothing(server: MlflowServer, launch: Launcher, answer: str) -> None:
    with proxy(server.port, one_of_five(answer)) as uri:
        code = launch(trials=6, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 6)


@pytest.mark.parametrize("answer", [HTML, EMPTY])
def test_false_searches_double_no_run(server: MlflowServer, launch: Launcher, answer: str) -> None:
    dice = random.Random(2)

    def choose(method: str, path: str, times: int) -> str:
        if path == CREATE:  # of the parent run, and of two trials
            return LOSE if times in (1, 3, 5) else FORWARD
        if path == SEARCH:
            return answer if dice.random() < 0.6 else FORWARD
        return answer if method == "GET" and dice.random() < 0.2 else FORWARD

    with proxy(server.port, choose) as uri:
        code = launch(trials=6, prune=False, tracking_uri=uri, patience=60)

    assert code == 0
    assert_each_run_once(server, 6)


def test_files_that_a_proxy_swallowed_stay_in_the_outbox(
    server: MlflowServer, launch: Launcher
) -> None:
    def choose(method: str, path: str, times: int) -> str:
        return HTML if method == "PUT" else FORWARD

    with proxy(server.port, choose) as uri:
        assert launch(trials=2, prune=False, tracking_uri=uri, patience=3) == 3
        folders = list(Path("mlruns/outbox/small").glob("0*"))
        assert [len(list(folder.iterdir())) for folder in folders] == [3, 3]

    assert launch(trials=2, prune=False, tracking_uri=server.uri) == 0
    assert_whole("small", 2, uri=server.uri)
