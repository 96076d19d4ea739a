"""The tracking store: connections, experiments and searches on real databases."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from makemore.errors import UserError
from studies.harness.tracking.connection.connect import (
    check_default_store,
    connect,
    default_tracking_uri,
    is_default,
    resolve_uri,
)
from studies.harness.tracking.connection.find import (
    experiments_with_runs,
    find_experiment,
    find_runs,
    get_experiment,
)


def test_uri_comes_from_flag_then_environment_then_mlruns(
    workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert resolve_uri(None) == default_tracking_uri() == f"sqlite:///{workdir}/mlruns/mlflow.db"
    assert is_default(None) and is_default("sqlite:///mlruns/mlflow.db")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host")
    assert resolve_uri(None) == "http://host" and not is_default(None)
    assert resolve_uri("sqlite:///x.db") == "sqlite:///x.db"


def test_missing_database_is_created_in_wal_mode(tmp_path: Path, workdir: Path) -> None:
    path = tmp_path / "new" / "mlflow.db"

    connect(f"sqlite:///{path}")

    with closing(sqlite3.connect(path)) as database:
        assert database.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    # The temporary file is gone.
    assert [file.name for file in path.parent.iterdir() if file.name.startswith(".")] == []


@pytest.mark.parametrize(
    ("uri", "sentence"),
    [
        ("mlruns", "tracking URI 'mlruns' has no scheme; give sqlite:///PATH or the http:// "),
        ("http://me:secret@127.0.0.1:9", "MLflow at http://me:***@127.0.0.1:9 does not answer: "),
        ("sqlite:///notes.txt", "MLflow at sqlite:///notes.txt does not answer: file is not a "),
    ],
)
def test_unusable_store_is_one_sentence(workdir: Path, uri: str, sentence: str) -> None:
    (workdir / "notes.txt").write_text("my notes, which are not a database\n" * 100)

    with pytest.raises(UserError) as caught:
        connect(uri)

    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


def test_default_store_that_is_no_database_is_refused_early(workdir: Path) -> None:
    check_default_store()
    (workdir / "mlruns" / "mlflow.db").write_text("my notes, which are not a database\n" * 100)

    with pytest.raises(UserError, match="does not answer: file is not a database"):
        check_default_store()


def test_experiment_is_created_once(workdir: Path) -> None:
    client = connect(None)

    experiment_id = get_experiment(client, "mlp")

    assert get_experiment(client, "mlp") == experiment_id
    location = client.get_experiment(experiment_id).artifact_location
    assert location == (workdir / "mlruns" / "artifacts" / "mlp").as_uri()


def test_deleted_experiment_is_refused_with_the_way_back(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    client.delete_experiment(experiment_id)

    with pytest.raises(UserError, match=f"mlflow experiments restore -x {experiment_id}"):
        get_experiment(client, "mlp")


def test_unknown_experiment_is_refused_with_the_known_ones(workdir: Path) -> None:
    client = connect(None)
    for name in ("wide", "deep"):
        get_experiment(client, name)

    assert find_experiment(client, "wide").name == "wide"
    with pytest.raises(UserError, match="no study 'mlp' in this MLflow store; it holds deep, wide"):
        find_experiment(client, "mlp")


def test_experiment_with_the_newest_run_comes_first(workdir: Path) -> None:
    client = connect(None)
    assert experiments_with_runs(client) == []
    for name, started in (("a", 1000), ("b", 3000), ("c", 2000)):
        client.create_run(get_experiment(client, name), start_time=started)
    client.create_run(get_experiment(client, "a"), start_time=4000)
    get_experiment(client, "without runs")

    assert [experiment.name for experiment in experiments_with_runs(client)] == ["a", "b", "c"]


def test_runs_are_found_by_query_tags_and_number(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    for trial in range(3):
        tags = {"trial": str(trial), "launch": "one" if trial else "two"}
        client.create_run(experiment_id, start_time=1000 + trial, tags=tags)

    def numbers(*args: str, **options: object) -> list[str]:
        runs = find_runs(client, experiment_id, *args, **options)  # type: ignore[arg-type]
        return [run.data.tags["trial"] for run in runs]

    assert numbers() == ["2", "1", "0"]
    assert numbers(launch="one") == ["2", "1"]
    assert numbers("tags.trial != '2'", launch="one") == ["1"]
    assert numbers(most=1) == ["2"]
