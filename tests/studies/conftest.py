"""Real stores for the studies, in a new folder for each test, and helpers that read them."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.search.launch import run_study
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.repairs.doctor import check
from studies.mlp import LECTURE
from studies.mlp import space as five_parameters
from tests.conftest import free_port, start, write_small_names
from tests.servers import MlflowServer

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")
ENDED = (TrialState.COMPLETE, TrialState.PRUNED)
PASSWORD = "a-secret"  # of the PostgreSQL server
Launcher = Callable[..., int]


# ---- folders, and studies in this process


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
def names(workdir: Path) -> Path:
    """A file of a few hundred words, so that a trial takes milliseconds."""
    return write_small_names(workdir / "names.txt")


@pytest.fixture
def launch(names: Path) -> Launcher:
    """Launch a small study in this process; returns the exit code."""

    def launch(
        space: Any = five_parameters,
        base: Config = BASE,
        first: Any = LECTURE,
        pruner: BasePruner | None = None,
        **flags: Any,
    ) -> int:
        defaults = {
            "study": "small",
            "trials": 4,
            "steps": 40,
            "workers": 2,
            "device": "cpu",
            "repeats": 0,
        }
        args = StudyArgs(**{"names": names, **defaults, **flags})
        return run_study(args, space, base, first=first, pruner=pruner)

    return launch


# ---- Optuna storages


def find_initdb() -> Path:
    """Return PostgreSQL's initdb, next to its other programs; skips the test if there is none."""
    installed = [str(path) for path in sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))]
    initdb = installed[-1] if installed else shutil.which("initdb")
    if initdb is None:
        pytest.skip("no PostgreSQL server is installed here (Debian: apt-get install postgresql)")
    return Path(initdb)


@contextmanager
def postgres_server(folder: Path, initdb: Path) -> Iterator[str]:
    """Run a PostgreSQL server on 127.0.0.1 while the block runs; yields its URL."""
    user = None
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres"
        shutil.chown(folder, user)

    def run(program: str, *arguments: str) -> None:
        command = [str(initdb.with_name(program)), "-D", f"{folder}/data", *arguments]
        subprocess.run(command, user=user, cwd=folder, check=True, stdout=subprocess.DEVNULL)

    (folder / "password").write_text(PASSWORD)
    password = f"--pwfile={folder}/password"
    run("initdb", "-U", "tester", "--auth=scram-sha-256", password, "--no-sync")
    port = free_port()
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c fsync=off -k {folder}"
    run("pg_ctl", "-o", options, "-l", f"{folder}/log", "-w", "start")
    yield f"postgresql://tester:{PASSWORD}@127.0.0.1:{port}"
    run("pg_ctl", "-m", "immediate", "stop")


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """The URL, without a database, of a PostgreSQL server that these tests started."""
    initdb = find_initdb()
    # Not one of pytest's own folders: these are closed to other users.
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        with postgres_server(Path(folder), initdb) as url:
            yield url


@pytest.fixture
def postgres_storage(postgres: str) -> str:
    """The URL of a new, empty PostgreSQL database."""
    import psycopg

    name = f"test_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{postgres}/postgres", autocommit=True) as connection:
        connection.execute(f"CREATE DATABASE {name}")
    return f"{postgres}/{name}"


@pytest.fixture(params=["journal", pytest.param("postgresql", marks=pytest.mark.server)])
def storage(request: pytest.FixtureRequest) -> str | None:
    """Each kind of Optuna storage; None is the default journal."""
    if request.param == "journal":
        return None
    url: str = request.getfixturevalue("postgres_storage")
    return url


# ---- MLflow servers


@pytest.fixture
def server(workdir: Path, mlflow_template: Path) -> Iterator[MlflowServer]:
    """A real MLflow server on an empty store."""
    server = MlflowServer(workdir / "server", mlflow_template)
    server.start()
    yield server
    server.kill()


# ---- studies in other processes


def start_study(
    names: Path,
    *flags: object,
    storage: str | None = None,
    folder: Path | None = None,
    patches: Mapping[str, object] | None = None,
) -> subprocess.Popen[str]:
    """Start studies/mlp.py on the CPU as a user would, without seed repeats; see `start`."""
    store = ["--storage", storage] if storage else []
    always = ("--names", names, "--device", "cpu", "--repeats", 0)
    return start("studies/mlp.py", *always, *flags, *store, folder=folder, patches=patches)


# ---- contents of the stores


def trials_of(study: str, storage: str | None = None) -> list[FrozenTrial]:
    """Return the trials of a study, none if it does not exist yet."""
    try:
        return load_study(study, storage).get_trials(deepcopy=False)
    except ValueError:
        return []


def states_of(study: str, storage: str | None = None) -> list[TrialState]:
    return [trial.state for trial in trials_of(study, storage)]


def outcomes_of(study: str) -> list[tuple[Any, ...]]:
    """Return what must be equal in two studies that trained the same trials."""
    return [
        (t.number, t.params, t.state, dev_loss(t), t.intermediate_values) for t in trials_of(study)
    ]


def runs_of(study: str, uri: str | None = None) -> list[Any]:
    """Return the MLflow runs of a study, parent runs included."""
    client = connect(uri)
    return find_runs(client, get_experiment(client, study))


def runs_by_trial(study: str) -> dict[int, Any]:
    """Return the newest MLflow run of each trial."""
    return {
        int(run.data.tags["trial"]): run
        for run in reversed(runs_of(study))
        if "trial" in run.data.tags
    }


def artifacts_of(run: Any) -> set[str]:
    """Return the names of a run's artifacts."""
    return {item.path for item in connect(None).list_artifacts(run.info.run_id)}


def violations(study: str, storage: str | None = None, uri: str | None = None) -> list[str]:
    """Return in what Optuna's storage and MLflow differ, as the doctor finds it."""
    client = connect(uri)
    experiment_id = get_experiment(client, study)
    found = check(load_study(study, storage), client, experiment_id, MLRUNS / "outbox" / study)
    return [f"{violation.kind}: {violation.detail}" for violation in found]


def assert_whole(
    study: str, total: int, storage: str | None = None, uri: str | None = None
) -> None:
    """Assert that exactly `total` trials ended, and that each has exactly one finished run."""
    trials = trials_of(study, storage)
    ended = [trial.number for trial in trials if trial.state in ENDED]
    assert len(ended) == total
    assert not {TrialState.RUNNING, TrialState.WAITING} & {trial.state for trial in trials}
    assert violations(study, storage, uri) == []

    runs = runs_of(study, uri)
    final = [run for run in runs if run.data.tags.get("state") in ("COMPLETE", "PRUNED")]
    assert sorted(int(run.data.tags["trial"]) for run in final) == ended
    assert not [run.info.run_name for run in runs if run.info.status == "RUNNING"]
