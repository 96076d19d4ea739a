"""A working directory that is copied or moved: each copy has its own files, and nothing is lost."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import pytest

from studies.harness.store.launches import is_alive, lease_of
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.connection.moved import FOLDER
from tests.conftest import ROOT
from tests.studies.conftest import (
    Launcher,
    artifacts_of,
    assert_whole,
    runs_by_trial,
    runs_of,
)

MODEL = "model.safetensors"


def files_below(folder: Path) -> dict[Path, bytes]:
    """Return the content of every file below a folder, without SQLite's index of its log."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.suffix != ".db-shm"]
    return {path.relative_to(folder): path.read_bytes() for path in files}


def locations(study: str) -> set[Path]:
    """Return the folders below which MLflow stores the artifacts of a study's runs."""
    uris = [run.info.artifact_uri for run in runs_of(study)]
    return {Path(url2pathname(urlsplit(uri).path)).parents[3] for uri in uris}


def forget_folder() -> None:
    """Make the database one of an earlier version, which did not remember its folder."""
    with closing(sqlite3.connect(MLRUNS / "mlflow.db")) as database, database:
        database.execute("DELETE FROM experiment_tags WHERE key = ?", (FOLDER,))


@pytest.fixture(params=["remembered", "earlier version"])
def study(request: pytest.FixtureRequest, launch: Launcher) -> Path:
    """The folder of a complete study of 8 trials."""
    launch(trials=8, prune=False)
    if request.param == "earlier version":
        forget_folder()
    return Path.cwd()


def test_copy_leaves_the_original_alone(
    study: Path, launch: Launcher, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    copy = tmp_path_factory.mktemp("place") / "a copy"
    shutil.copytree(study, copy)
    before = files_below(study)

    monkeypatch.chdir(copy)
    launch(trials=9, prune=False, keep_models=2)

    assert files_below(study) == before
    assert locations("small") == {copy / "mlruns"}
    assert_whole("small", 9)
    assert [MODEL in artifacts_of(run) for run in runs_by_trial("small").values()].count(True) == 2
    # The original keeps working too.
    monkeypatch.chdir(study)
    assert locations("small") == {study / "mlruns"}
    assert all(MODEL in artifacts_of(run) for run in runs_by_trial("small").values())


def test_moved_folder_keeps_its_artifacts(
    study: Path, launch: Launcher, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    new = tmp_path_factory.mktemp("place") / "é moved"
    shutil.move(study, new)
    study.write_text("The old path cannot be written: this is a file.")

    monkeypatch.chdir(new)
    assert launch(trials=9, prune=False, names=new / "names.txt") == 0

    assert locations("small") == {new / "mlruns"}
    assert_whole("small", 9)
    for run in runs_by_trial("small").values():
        assert MODEL in artifacts_of(run)


def test_artifacts_elsewhere_stay_there(
    launch: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    launch(trials=2)
    alone = tmp_path_factory.mktemp("place") / "alone.db"
    with closing(sqlite3.connect(MLRUNS / "mlflow.db")) as source:
        with closing(sqlite3.connect(alone)) as target:
            source.backup(target)

    client = connect(f"sqlite:///{alone}")

    location = client.get_experiment(get_experiment(client, "small")).artifact_location
    assert location == (MLRUNS / "artifacts" / "small").absolute().as_uri()


def test_database_moves_with_the_folder_around_it(
    launch: Launcher, tmp_path_factory: pytest.TempPathFactory
) -> None:
    uri = f"sqlite:///{MLRUNS.absolute()}/mlflow.db"
    launch(trials=2, tracking_uri=uri)
    new = tmp_path_factory.mktemp("place") / "mlruns"
    shutil.copytree(MLRUNS, new)

    client = connect(f"sqlite:///{new}/mlflow.db")

    location = client.get_experiment(get_experiment(client, "small")).artifact_location
    assert location == (new / "artifacts" / "small").as_uri()


def test_link_to_the_folder_is_no_move(launch: Launcher, monkeypatch: Any) -> None:
    launch(trials=2)
    before = locations("small")
    link = Path.cwd().with_name("link")
    link.symlink_to(Path.cwd())

    connect(f"sqlite:///{link}/mlruns/mlflow.db")

    assert locations("small") == before


HOLD_LAUNCH = """
import sys, time
from studies.harness.store.launches import Launch
from studies.harness.store.study import load_study
launch = Launch.begin(load_study("small", None))
print(launch.id, flush=True)
time.sleep(60)
"""


def test_launch_of_the_original_is_dead_in_the_copy(
    launch: Launcher, tmp_path_factory: pytest.TempPathFactory, monkeypatch: Any
) -> None:
    launch(trials=2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", HOLD_LAUNCH]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:
        assert process.stdout
        other = process.stdout.readline().strip()
        original = Path.cwd()
        copy = tmp_path_factory.mktemp("place") / "copy"
        shutil.copytree(original, copy)
        monkeypatch.chdir(copy)
        assert not is_alive(lease_of(load_study("small", None), other))
        # The original's lock still holds.
        monkeypatch.chdir(original)
        assert is_alive(lease_of(load_study("small", None), other))

        # Moved while it runs, it lives on.
        moved = copy.with_name("moved")
        shutil.move(original, moved)
        monkeypatch.chdir(moved)
        assert is_alive(lease_of(load_study("small", None), other))
        process.kill()
    assert not is_alive(lease_of(load_study("small", None), other))
