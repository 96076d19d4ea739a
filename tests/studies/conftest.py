"""Real stores for the studies: a folder of its own for each test, and MLflow's database copied from a migrated one."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.search.launch import run_study
from studies.harness.tracking.client import connect
from studies.mlp import LECTURE
from studies.mlp import space as five_parameters

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow database: making one takes seconds, copying it milliseconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> Path:
    """An empty current directory whose mlruns/ holds a fresh MLflow database."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(mlflow_template, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@pytest.fixture
def names(workdir: Path, words: list[str]) -> Path:
    """A file of a few hundred words, so that a trial takes milliseconds."""
    path = workdir / "names.txt"
    path.write_text(
        "\n".join(a[:i] + b for a in words for b in words for i in (2, 3))[:4000] + "\n"
    )
    return path


@pytest.fixture
def launch(names: Path) -> Callable[..., int]:
    """Launch a small study in this process; returns the exit code."""

    def launch(
        space: Any = five_parameters, base: Config = BASE, first: Any = LECTURE, **flags: Any
    ) -> int:
        defaults = {
            "study": "small",
            "trials": 4,
            "steps": 40,
            "workers": 2,
            "device": "cpu",
            "repeats": 0,
        }
        return run_study(
            StudyArgs(**{"names": names, **defaults, **flags}), space, base, first=first
        )

    return launch


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL, without a database, of a PostgreSQL server on 127.0.0.1 that these tests started."""
    binaries = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) or [
        Path(shutil.which("initdb") or "")
    ]
    if not binaries[-1].is_file():
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    folder = Path(
        tempfile.mkdtemp(prefix="postgres-")
    )  # pytest's own folders are closed to other users
    user = "postgres" if os.getuid() == 0 else None  # the server refuses to run as root
    if user:
        shutil.chown(folder, user)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]

    def run(program: str, *arguments: str) -> None:
        command = [str(binaries[-1].with_name(program)), *arguments]
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    data = str(folder / "data")
    (folder / "password").write_text("a-secret")
    run(
        "initdb",
        "-D",
        data,
        "-U",
        "tester",
        "--auth=scram-sha-256",
        f"--pwfile={folder}/password",
        "--no-sync",
    )
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    run("pg_ctl", "-D", data, "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://tester:a-secret@127.0.0.1:{port}"
    run("pg_ctl", "-D", data, "-m", "immediate", "stop")
    shutil.rmtree(folder)


@pytest.fixture(params=["journal", "postgresql"])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Each kind of Optuna storage: None is the default journal."""
    if request.param == "journal":
        return None
    url, name = request.getfixturevalue("postgres"), f"test_{uuid.uuid4().hex[:12]}"
    import psycopg

    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{url}/{name}"
