"""Opening storages: creation, and the messages for storages that cannot be opened."""

from __future__ import annotations

import os
import re
from pathlib import Path

import optuna
import pytest

from makemore.errors import UserError
from studies.harness.store.storage import open_storage


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(spec: str | None, study: str = "mlp", create: bool = False) -> str:
    with pytest.raises(UserError) as caught:
        open_storage(spec, study, create=create)
    return str(caught.value)


@pytest.mark.parametrize("spec", [None, "here/file.journal", "sqlite:///here/file.db"])
def test_missing_store_is_created_and_opens_again(spec: str | None) -> None:
    optuna.create_study(study_name="mlp", storage=open_storage(spec, "mlp"))

    assert optuna.get_all_study_names(open_storage(spec, "mlp", create=False)) == ["mlp"]


def test_missing_journal_names_the_absolute_folder(folder: Path) -> None:
    assert refusal(None) == (
        f"no study 'mlp' in {folder}/mlruns/optuna; run the command from the folder that holds "
        "mlruns/, or give --storage."
    )
    # Nothing is created by a failed look.
    assert list(folder.iterdir()) == []


def test_missing_journal_names_the_studies_that_exist(folder: Path) -> None:
    for name in ("wide", "deep"):
        open_storage(None, name)

    assert refusal(None) == (
        f"no study 'mlp' in {folder}/mlruns/optuna, which holds deep, wide; give one of these "
        "names, run the command from the folder that holds the right mlruns/, or give --storage."
    )


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("x.journal", "{folder}/x.journal: no such journal; give --storage the path of one"),
        ("sqlite:///x.db", "{folder}/x.db: no such SQLite file; give --storage one that exists."),
        (".", ".: is a directory; give --storage the path of a journal file or an Optuna URL."),
        ("nonsense://u:secret@host/x", "storage nonsense://u:***@host/x cannot be opened: "),
    ],
)
def test_missing_store_given_by_a_flag_is_named(folder: Path, spec: str, sentence: str) -> None:
    assert refusal(spec).startswith(sentence.format(folder=folder))
    assert list(folder.iterdir()) in ([], [folder / "mlruns"])  # mlruns/ for the lock


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ("/dev/null", "/dev/null: is not a regular file; give --storage the path of a journal"),
        ("fifo", "fifo: is not a regular file; give --storage the path of a journal file"),
        ("sqlite:///fifo", "fifo: is not a regular file; give --storage another path."),
        ("sqlite://", "storage sqlite:// names no file, so nothing would be kept; give --storage "),
        ("sqlite:///", "storage sqlite:/// names no file, so nothing would be kept; give "),
        ("sqlite:///:memory:", "storage sqlite:///:memory: names no file, so nothing would be "),
        (f"{'x' * 300}", f"{'x' * 300}: the journal cannot be opened (File name too long)"),
        (f"sqlite:///{'x' * 300}", f"storage sqlite:///{'x' * 300} cannot be opened: File name"),
        ("sqlite://mlp.db", "storage sqlite://mlp.db names no file, so nothing would be kept"),
    ],
)
def test_store_that_cannot_keep_a_study_is_refused(folder: Path, spec: str, sentence: str) -> None:
    os.mkfifo(folder / "fifo")

    assert refusal(spec, create=True).startswith(sentence)
    assert list(folder.iterdir()) == [folder / "fifo"]


def test_damaged_record_is_refused_with_its_line(folder: Path) -> None:
    optuna.create_study(study_name="mlp", storage=open_storage("study.journal", "mlp"))
    file = folder / "study.journal"
    file.write_bytes(content := file.read_bytes().replace(b'"mlp"', b'"mlq"'))

    assert refusal("study.journal", create=True) == (
        "study.journal, line 1: the record is damaged; restore the file from a copy, or begin a "
        "new study with another --study."
    )
    assert file.read_bytes() == content


@pytest.mark.parametrize("content", [b"my notes", b"garbage\n", b'{"model": "important"}'])
def test_other_file_is_refused_and_left_unchanged(folder: Path, content: bytes) -> None:
    (folder / "notes").write_bytes(content)

    sentence = refusal("notes", create=True)

    assert sentence == "notes: is not an Optuna journal; give --storage another path."
    assert (folder / "notes").read_bytes() == content


def test_folder_below_a_file_is_refused_with_the_reason(folder: Path) -> None:
    (folder / "file").touch()

    sentence = refusal("file/study.journal", create=True)

    assert re.match(r"file/study.journal: the journal cannot be opened \(.+\); ", sentence)
