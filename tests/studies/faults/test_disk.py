"""Full and read-only disks, and MLflow databases that cannot be opened."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import pytest
from optuna.trial import TrialState

from makemore.errors import UserError
from studies.harness.store.paths import MLRUNS
from studies.harness.tracking.connection.connect import connect
from tests.conftest import finish, free_port, wait_for
from tests.studies.conftest import Launcher, assert_whole, start_study, states_of


@pytest.fixture
def small_disk(workdir: Path, mlflow_template: Path) -> Iterator[Callable[[str], None]]:
    """Put mlruns/ on its own tmpfs; yields a function that remounts it with other options."""
    shutil.rmtree("mlruns")
    Path("mlruns").mkdir()

    def mount(options: str) -> None:
        command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", "mlruns"]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            pytest.skip(f"a tmpfs cannot be mounted here: {done.stderr.strip()}")

    mount("size=3m")
    shutil.copy(mlflow_template, "mlruns/mlflow.db")
    yield lambda options: mount(f"remount,{options}")
    subprocess.run(["umount", "-l", "mlruns"], check=True)


def test_full_disk_is_reported_and_study_resumes(
    small_disk: Callable[[str], None], names: Path
) -> None:
    # Room for the start of a study, but not for all of its checkpoints.
    flags = ("--trials", 30, "--steps", 100, "--no-prune", "--patience", 1)
    used = sum(path.stat().st_size for path in MLRUNS.rglob("*") if path.is_file())
    Path("mlruns/ballast").write_bytes(b"x" * max(0, 2_400_000 - used))

    # MLflow itself would wait for a full disk for about 100 s.
    ran = finish(start_study(names, *flags), timeout=60)

    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err
    assert "No space left on device" in ran.err or "disk is full" in ran.err

    Path("mlruns/ballast").unlink()
    small_disk("size=64m")
    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 30)


def test_read_only_disk_is_reported(small_disk: Callable[[str], None], names: Path) -> None:
    flags = ("--steps", 100)
    assert finish(start_study(names, *flags, "--trials", 2)).code == 0

    small_disk("ro")
    ran = finish(start_study(names, *flags, "--trials", 3))

    assert ran.code in (1, 2)
    assert "Traceback" not in ran.err
    assert "ead-only file system" in ran.err
    small_disk("rw")
    assert_whole("mlp", 2)


@pytest.mark.parametrize("removed", ["optuna/mlp.journal", "."])
def test_removed_journal_ends_a_launch_with_one_sentence(names: Path, removed: str) -> None:
    process = start_study(names, "--trials", 2, "--steps", 500_000, "--patience", 1)
    wait_for(lambda: TrialState.RUNNING in states_of("mlp"))
    path = MLRUNS / removed
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    ran = finish(process)

    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert "mlp.journal: the journal was removed while it was in use" in ran.err


def test_unusable_database_is_reported_during_training(names: Path, mlflow_template: Path) -> None:
    flags = ("--trials", 3, "--steps", 20_000)
    with closing(sqlite3.connect("mlruns/mlflow.db")) as database, database:
        database.execute("UPDATE alembic_version SET version_num = 'of-a-newer-mlflow'")

    ran = finish(start_study(names, *flags))

    assert ran.code == 2
    assert "Traceback" not in ran.err
    assert ran.err.splitlines()[-1].startswith("MLflow at sqlite:///")
    # Running trials wait, and ended ones are sent as soon as the store can be opened.
    assert TrialState.RUNNING not in states_of("mlp")

    for file in MLRUNS.glob("mlflow.db*"):
        file.unlink()
    shutil.copy(mlflow_template, "mlruns/mlflow.db")
    ran = finish(start_study(names, *flags))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 3)


def test_other_file_is_refused_before_the_study(names: Path) -> None:
    Path("mlruns/mlflow.db").write_text("my notes, not a database\n" * 100)

    ran = finish(start_study(names, "--trials", 1))

    assert ran.code == 2
    assert "does not answer: file is not a database" in ran.err
    assert "Traceback" not in ran.err
    assert not Path("mlruns/optuna").exists()


# MLflow's own engine retries such a database for about 100 s.
@pytest.mark.timeout(60)
@pytest.mark.parametrize(
    ("content", "reason"),
    [(None, "unable to open database file"), ("my notes", "file is not a database")],
)
def test_unusable_database_is_refused_at_once(
    workdir: Path, content: str | None, reason: str
) -> None:
    path = workdir / "other.db"
    if content is None:
        path.mkdir()
    else:
        path.write_text(content)

    with pytest.raises(UserError, match=f"does not answer: {reason}"):
        connect(f"sqlite:///{path}")


@pytest.mark.timeout(60)
def test_full_disk_is_reported_at_once(small_disk: Callable[[str], None]) -> None:
    with suppress(OSError), Path("mlruns/ballast").open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))

    with pytest.raises(UserError, match="does not answer: .*No space left on device"):
        connect(None)


@pytest.mark.timeout(60)
def test_absent_database_server_is_refused_at_once(workdir: Path) -> None:
    uri = f"postgresql://me:secret@127.0.0.1:{free_port()}/mlflow"

    with pytest.raises(UserError, match="MLflow at postgresql://me:.*Connection refused") as caught:
        connect(uri)

    assert "secret" not in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.server
def test_database_server_holds_the_runs(launch: Launcher, postgres_storage: str) -> None:
    assert launch(trials=2, tracking_uri=postgres_storage) == 0

    assert_whole("small", 2, uri=postgres_storage)
