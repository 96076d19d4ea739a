"""Input and surroundings that scripts refuse: one sentence, and nothing stored is changed."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from studies.harness.store.paths import MLRUNS
from tests.conftest import finish, start
from tests.studies.conftest import Launcher, outcomes_of, start_study


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--storage", "/dev/null"), "/dev/null: is not a regular file; give --storage the path"),
        (("--storage", "sqlite://"), "storage sqlite:// names no file"),
        (("--names", "fifo"), "fifo: is not a regular file; give a text file with one word per"),
        (("--names", "x" * 300), f"{'x' * 300}: cannot be read (File name too long)"),
    ],
)
def test_path_that_cannot_be_used_is_refused(
    names: Path, flags: tuple[str, str], sentence: str
) -> None:
    os.mkfifo("fifo")
    last = () if flags[0] == "--names" else ("--names", names)

    ran = finish(start("studies/mlp.py", "--trials", 1, *flags, *last))

    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith(sentence)
    assert len(ran.err.splitlines()) == 2  # the announcement and the sentence
    assert not (MLRUNS / "optuna").exists()
    assert Path("/dev/null").is_char_device()


def test_compiler_that_is_turned_off_is_reported(
    names: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_DISABLE_JIT", "1")

    ran = finish(start_study(names, "--trials", 1))

    assert ran.code == 2
    assert ran.err.splitlines()[-1].startswith("NUMBA_DISABLE_JIT turns off the compiler")
    assert not (MLRUNS / "optuna").exists()


def test_damaged_journal_is_reported_and_left_unchanged(launch: Launcher, names: Path) -> None:
    launch(trials=2, study="mlp")
    journal = MLRUNS / "optuna" / "mlp.journal"
    shutil.copy(journal, "copy")
    before = outcomes_of("mlp")
    content = bytearray(journal.read_bytes())
    content[content.rindex(b'"dev_loss":') + 14] ^= 1
    journal.write_bytes(content)
    number = content[: content.rindex(b'"dev_loss":')].count(b"\n") + 1
    sentence = f"{journal}, line {number}: the record is damaged; restore the file from a copy"

    for command in (
        start("studies/doctor.py", "mlp", "--repair"),
        start_study(names, "--trials", 3),
    ):
        ran = finish(command)
        assert ran.code == 2
        assert ran.err.splitlines()[-1].startswith(sentence)

    assert journal.read_bytes() == content
    shutil.copy("copy", journal)
    assert outcomes_of("mlp") == before


@pytest.mark.parametrize("script", ["studies/mlp.py", "experiments/export.py"])
def test_removed_working_directory_is_reported(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    monkeypatch.chdir(gone)
    gone.rmdir()

    ran = finish(start(script, "mlp"))

    assert ran.code == 2
    assert ran.err == "the working directory was removed; change to a folder that exists.\n"


def test_working_directory_that_is_not_utf8_is_refused(
    names: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    monkeypatch.chdir(folder)

    ran = finish(start_study(names.absolute(), "--trials", 1))

    assert ran.code == 2
    sentence = f"{tmp_path}/caf\\xe9/mlruns: the path is not UTF-8 text; rename the folder"
    assert ran.err.splitlines()[-1].startswith(sentence)
    assert not any(folder.iterdir())
