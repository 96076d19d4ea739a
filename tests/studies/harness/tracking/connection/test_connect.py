"""Connections to tracking stores: real databases, and addresses without a server."""

from __future__ import annotations

import os
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
        ("sqlite://", "tracking URI sqlite:// names no file, so nothing would be kept; give "),
        ("sqlite:///:memory:", "tracking URI sqlite:///:memory: names no file, so nothing would"),
        ("http://me:secret@127.0.0.1:9", "MLflow at http://me:***@127.0.0.1:9 does not answer: "),
        ("sqlite:///notes.txt", "MLflow at sqlite:///notes.txt does not answer: file is not a "),
    ],
)
def test_unusable_store_is_one_sentence(workdir: Path, uri: str, sentence: str) -> None:
    (workdir / "notes.txt").write_text("my notes, which are not a database\n" * 100)

    with pytest.raises(UserError) as caught:
        connect(uri)

    assert str(caught.value).startswith(sentence) and "\n" not in str(caught.value)


@pytest.mark.timeout(60)  # MLflow itself would retry such a path for about 100 s
def test_path_that_is_not_utf8_is_refused(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = workdir / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)
    for uri in (None, "sqlite:///other.db"):
        with pytest.raises(UserError, match=r"caf\\xe9/.*: the path is not UTF-8 text; rename the"):
            connect(uri)
    assert not any(folder.iterdir())


def test_default_store_that_is_no_database_is_refused_early(workdir: Path) -> None:
    check_default_store()
    (workdir / "mlruns" / "mlflow.db").write_text("my notes, which are not a database\n" * 100)

    with pytest.raises(UserError, match="does not answer: file is not a database"):
        check_default_store()
