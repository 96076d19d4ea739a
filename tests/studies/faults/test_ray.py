"""Studies on a real Ray cluster: nodes leave and join, workers and the coordinator are killed."""

from __future__ import annotations

import os
import re
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT, finish, start, wait_for
from tests.studies.conftest import ENDED, assert_whole, outcomes_of, start_study, states_of

pytest.importorskip("ray", reason="needs the package ray: pip install ray")
pytestmark = pytest.mark.slow


def n_ended() -> int:
    return sum(state in ENDED for state in states_of("mlp"))


class Cluster:
    """A Ray cluster whose head node has one core; `add` adds a node with one core."""

    def __init__(self, token: str) -> None:
        self._token = token.encode()
        self._process = subprocess.Popen(
            [sys.executable, ROOT / "tests" / "studies" / "faults" / "ray_cluster.py"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self.address = self._answer()

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def tell(self, command: str) -> None:
        """Run `add` or `remove`, and wait until it is done."""
        assert self._process.stdin
        self._process.stdin.write(f"{command}\n")
        self._process.stdin.flush()
        assert self._answer() == command

    def workers(self) -> list[int]:
        """Return the processes of the workers that train for a study."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                is_worker = (process / "cmdline").read_bytes().startswith(b"ray::RayWorker")
                if is_worker and self._token in (process / "environ").read_bytes():
                    found.append(int(process.name))
            except OSError:  # it ended meanwhile
                continue
        return found

    def close(self) -> None:
        self._process.communicate(timeout=60)


@pytest.fixture
def cluster(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cluster]:
    token = secrets.token_hex(32)
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")  # Ray then listens on 127.0.0.1
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    cluster = Cluster(token)
    yield cluster
    cluster.close()


def test_study_survives_the_faults_of_a_cluster(cluster: Cluster, names: Path) -> None:
    flags = ("--trials", 14, "--steps", 40_000, "--no-prune", "--ray", cluster.address)
    cluster.tell("add")
    study = start_study(names, *flags)
    wait_for(lambda: n_ended() >= 1, 120)
    cluster.tell("remove")
    wait_for(lambda: n_ended() >= 3, 120)
    cluster.tell("add")
    wait_for(lambda: len(cluster.workers()) == 2, 120)
    wait_for(lambda: n_ended() >= 5, 120)
    os.kill(cluster.workers()[0], signal.SIGKILL)
    wait_for(lambda: n_ended() >= 8, 120)
    os.killpg(study.pid, signal.SIGKILL)
    study.communicate()
    before = n_ended()
    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    assert 8 <= before < 14
    assert "Traceback" not in ran.err
    assert_whole("mlp", 14)


def test_study_continues_on_ray_with_the_same_losses(names: Path) -> None:
    def run(study: str, trials: int, *flags: object) -> None:
        always = ("--study", study, "--trials", trials, "--steps", 2000, "--no-prune")
        ran = finish(start_study(names, *always, "--workers", 2, *flags))
        assert ran.code == 0, ran.err
        lines = ran.err.splitlines()
        assert all(re.match(r"Study |Training |\d+/\d+ trials, ", line) for line in lines), lines

    run("here", 8)
    run("there", 3)
    run("there", 8, "--ray", "local")

    # The first ten proposals do not depend on the order of the outcomes.
    assert outcomes_of("there") == outcomes_of("here")


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--ray", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1 (Connection refused); "),
        (["--ray", "127.0.0.1:99999"], "no Ray cluster answers at 127.0.0.1:99999 ("),
        (["--ray", "node-1"], "Ray address 'node-1' must be HOST:PORT, auto or local."),
        (["--ray", "ray://h"], "Ray address 'ray://h' must be HOST:PORT, auto or local."),
        (["--ray", "local", "--device", "mps"], "device 'mps' cannot be used with Ray; use auto"),
    ],
)
def test_wrong_cluster_is_one_sentence(workdir: Path, flags: list[str], sentence: str) -> None:
    ran = finish(start("studies/mlp.py", "--trials", "1", *flags))

    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(sentence)
    assert "Traceback" not in ran.err
    assert not (workdir / "mlruns" / "optuna").exists()
