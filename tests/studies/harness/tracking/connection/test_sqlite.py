"""Tables of MLflow's SQLite database: the file with them against MLflow's own migrations."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import mlflow
import pytest

from studies.harness.tracking.connection import sqlite
from studies.harness.tracking.connection.connect import connect


def tables(path: Path) -> list[list[str]]:
    """Return the SQL of a database, without the default experiment and its times.

    Statements and their lines are sorted, because the migrations create indexes and constraints in
    random order.
    """
    with closing(sqlite3.connect(path)) as database:
        statements = [text for text in database.iterdump() if 'INTO "experiments"' not in text]
    return sorted(
        sorted(line.strip("\t ,") for line in statement.splitlines()) for statement in statements
    )


def schema_file() -> Path:
    return Path(sqlite.__file__).with_name(f"mlflow-{mlflow.__version__}.sql")


def test_tables_equal_those_of_the_migrations(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not schema_file().exists():
        pytest.skip(f"mlflow {mlflow.__version__} has no file of tables; it runs its migrations")
    connect(f"sqlite:///{tmp_path}/file.db")
    # A version without a file runs the migrations.
    monkeypatch.setattr(mlflow, "__version__", "0.0.0")
    connect(f"sqlite:///{tmp_path}/migrations.db")

    assert tables(tmp_path / "file.db") == tables(tmp_path / "migrations.db")
    assert len(tables(tmp_path / "file.db")) > 50


def test_new_database_has_the_default_experiment(tmp_path: Path) -> None:
    client = connect(f"sqlite:///{tmp_path}/new.db")

    assert [found.name for found in client.search_experiments()] == ["Default"]


def test_pinned_version_has_a_file_of_tables() -> None:
    constraints = Path(__file__).parents[5] / "constraints.txt"
    (pinned,) = [
        line.removeprefix("mlflow==")
        for line in constraints.read_text().splitlines()
        if line.startswith("mlflow==")
    ]

    assert Path(sqlite.__file__).with_name(f"mlflow-{pinned}.sql").exists()
