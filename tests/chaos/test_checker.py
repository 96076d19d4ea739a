"""The checker fails: each damage to a clean study is reported as what it is."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from optuna.storages.journal import JournalFileBackend, JournalStorage

from tests.chaos.checker import (
    DIFFERS,
    DOUBLED,
    FILE_LOST,
    LOST,
    OPEN,
    OUTSIDE,
    Place,
    changed_files,
    check,
    compare,
    fingerprint,
)
from tests.chaos.runner import Session
from tests.chaos.schedules import Schedule, Step
from tests.chaos.stores import Run, artifact_folder, read_runs, read_study
from tests.chaos.world import World

pytestmark = pytest.mark.slow
TRIALS = 6
ONE_RUN = "(SELECT run_uuid FROM tags WHERE key = 'trial' AND value = '3')"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Place, Path]]:
    """A clean study, and a copy of its files."""
    folder = tmp_path_factory.mktemp("clean")
    world = World(folder)
    launches = (Step(TRIALS - 2, (), False),)
    session = Session(world, Schedule(1, False, 40, 1, 0, True, launches))
    assert session.run().findings == []
    shutil.copytree(session.place.folder, folder / "files")
    yield session.place, folder / "files"
    world.close()


@pytest.fixture
def place(study: tuple[Place, Path]) -> Place:
    """The clean study; the damage of the test before is undone."""
    place, files = study
    shutil.rmtree(place.folder)
    shutil.copytree(files, place.folder)
    return place


def sql(place: Place, *commands: str) -> None:
    """Change MLflow's database."""
    with closing(sqlite3.connect(place.database)) as database, database:
        for command in commands:
            database.execute(command)


def run_of(place: Place, trial: int) -> Run:
    return next(run for run in read_runs(place.database, place.study) if run.trial == trial)


def file_of(place: Place, name: str) -> Path:
    return artifact_folder(run_of(place, 3), place.artifacts) / name


def kinds(place: Place, total: int = TRIALS) -> set[str]:
    return {finding.kind for finding in check(place, total)}


def delete_run(place: Place) -> None:
    run_id = run_of(place, 3).id
    tables = ("tags", "params", "metrics", "latest_metrics", "runs")
    sql(place, *(f"DELETE FROM {table} WHERE run_uuid = '{run_id}'" for table in tables))


def delete_run_as_mlflow_does(place: Place) -> None:
    sql(place, f"UPDATE runs SET lifecycle_stage = 'deleted' WHERE run_uuid = {ONE_RUN}")


def duplicate_run(place: Place) -> None:
    run_id = run_of(place, 3).id
    for table in ("runs", "tags", "params", "metrics", "latest_metrics"):
        with closing(sqlite3.connect(place.database)) as database:
            names = [row[1] for row in database.execute(f"PRAGMA table_info({table})")]
        values = ", ".join("'copy'" if name == "run_uuid" else name for name in names)
        sql(place, f"INSERT INTO {table} SELECT {values} FROM {table} WHERE run_uuid = '{run_id}'")


def break_checkpoint(place: Place) -> None:
    path = file_of(place, "model.safetensors")
    path.write_bytes(path.read_bytes()[:-1])


def unfinish_trial(place: Place) -> None:
    """Remove the record of a trial's end from the journal."""
    lines = place.journal.read_text().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if '"op_code":6,"' in line and '"values":[' in line]
    del lines[ends[-1]]
    place.journal.write_text("".join(lines))


def leave_in_outbox(place: Place) -> None:
    (place.outbox / "00003-launch").mkdir()


DAMAGE: list[tuple[Callable[[Place], object], str]] = [
    (delete_run, LOST),
    (delete_run_as_mlflow_does, LOST),
    (duplicate_run, DOUBLED),
    (break_checkpoint, FILE_LOST),
    (unfinish_trial, OPEN),
    (leave_in_outbox, OPEN),
]


@pytest.mark.parametrize(("damage", "kind"), DAMAGE, ids=lambda item: getattr(item, "__name__", ""))
def test_damage_is_reported(place: Place, damage: Callable[[Place], object], kind: str) -> None:
    assert kinds(place) == set()

    damage(place)

    assert kind in kinds(place)


@pytest.mark.parametrize(
    ("command", "kind"),
    [
        ("UPDATE latest_metrics SET value = value + 1e-6 WHERE key = 'dev_loss' AND", DIFFERS),
        ("UPDATE params SET value = '7' WHERE key = 'seed' AND", DIFFERS),
        ("UPDATE tags SET value = 'FAIL' WHERE key = 'state' AND", DIFFERS),
        ("UPDATE tags SET value = '99' WHERE key = 'trial' AND", DOUBLED),
        ("UPDATE tags SET value = 'none' WHERE key = 'mlflow.parentRunId' AND", DIFFERS),
        ("DELETE FROM metrics WHERE key = 'current_dev_loss' AND step = 8 AND", LOST),
        ("UPDATE metrics SET step = 9 WHERE key = 'current_dev_loss' AND step = 8 AND", DOUBLED),
        ("UPDATE runs SET status = 'RUNNING' WHERE", OPEN),
        ("UPDATE runs SET artifact_uri = 'file:///elsewhere' WHERE", OUTSIDE),
    ],
)
def test_changed_row_is_reported(place: Place, command: str, kind: str) -> None:
    sql(place, f"{command} run_uuid = {ONE_RUN}")

    assert kind in kinds(place)


@pytest.mark.parametrize("name", ["config.toml", "samples.txt", "model.safetensors"])
@pytest.mark.parametrize("content", [None, "", "<html>"])
def test_lost_file_is_reported(place: Place, name: str, content: str | None) -> None:
    path = file_of(place, name)
    path.unlink() if content is None else path.write_text(content)

    assert kinds(place) == {FILE_LOST}


def test_wrong_number_of_trials_is_reported(place: Place) -> None:
    assert kinds(place, TRIALS + 1) == {LOST}
    assert kinds(place, TRIALS - 1) == {DOUBLED}


def test_surplus_parent_run_is_reported(place: Place) -> None:
    other = "SELECT run_uuid FROM tags WHERE key = 'trial'"
    runs = "INSERT INTO runs (run_uuid, experiment_id, status, lifecycle_stage, artifact_uri)"
    sql(
        place,
        f"{runs} SELECT 'copy', experiment_id, status, 'active', '' FROM runs "
        f"WHERE run_uuid NOT IN ({other}) LIMIT 1",
        "INSERT INTO tags (run_uuid, key, value) SELECT 'copy', key, value FROM tags "
        f"WHERE key = 'launch' AND run_uuid NOT IN ({other}) LIMIT 1",
    )

    assert kinds(place) == {DOUBLED}


def test_missing_study_is_reported(place: Place, tmp_path: Path) -> None:
    assert kinds(replace(place, folder=tmp_path)) == {LOST}


def test_changed_and_added_files_are_found(place: Place) -> None:
    before = fingerprint(place.folder)
    (place.folder / "names.txt").write_text("other\n")
    (place.folder / "new").touch()

    assert changed_files(before, fingerprint(place.folder)) == ["names.txt", "new"]


def test_another_result_is_reported(place: Place) -> None:
    expected = read_study(place.journal)
    actual = read_study(place.journal)
    assert compare(expected, actual) == []

    actual.trials[2].attrs["summary"]["dev_loss"] += 1e-9

    assert [finding.kind for finding in compare(expected, actual)] == ["not reproduced"]


def test_journal_is_read_as_optuna_reads_it(place: Place) -> None:
    storage = JournalStorage(JournalFileBackend(str(place.journal)))
    expected = optuna.load_study(study_name=place.study, storage=storage).get_trials()
    found = read_study(place.journal).trials

    assert [(t.number, t.state, t.params, t.attrs) for t in found] == [
        (t.number, t.state.name, t.params, t.user_attrs) for t in expected
    ]
