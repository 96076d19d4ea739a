"""An MLflow server that stops answering, or answers wrongly, while a launch opens its store."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chaos.servers import MlflowServer, Proxy, WrongAnswer
from tests.conftest import finish
from tests.studies.conftest import assert_whole, start_study

pytestmark = pytest.mark.server


@pytest.fixture
def proxy(workdir: Path, mlflow_template: Path) -> Iterator[Proxy]:
    """A proxy in front of a real server."""
    server = MlflowServer(workdir / "server", mlflow_template)
    server.start()
    proxy = Proxy(server.port)
    yield proxy
    proxy.shutdown()
    proxy.server_close()
    server.kill()


def test_lost_answer_at_the_start_is_one_sentence(proxy: Proxy, names: Path) -> None:
    flags = ("--trials", 2, "--steps", 100, "--tracking-uri", proxy.uri)
    for kind, path in [
        ("lost reply", "experiments/get-by-name"),
        ("5xx", "experiments/set-experiment-tag"),
        ("false 200", "runs/create"),
    ]:
        proxy.arm(WrongAnswer(kind, path, skip=0, count=10))
        ran = finish(start_study(names, *flags))

        assert ran.code == 2, ran.err
        assert "Traceback" not in ran.err
        assert f"MLflow at {proxy.uri} does not answer" in ran.err.splitlines()[-1]

    proxy.arm()
    ran = finish(start_study(names, *flags))
    assert ran.code == 0, ran.err
    assert_whole("mlp", 2, uri=proxy.uri)
