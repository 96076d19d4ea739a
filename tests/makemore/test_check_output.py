"""check_output: which output paths are refused before the work begins."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from makemore.errors import UserError, check_output
from tests.conftest import ROOT


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("x")
    os.mkfifo("pipe")
    return tmp_path


def refusal(path: str) -> str:
    with pytest.raises(UserError) as refused:
        check_output(path, "--out")
    return str(refused.value)


def test_writable_path_is_returned_and_nothing_made(folder: Path) -> None:
    for name in ("file", "new", "a/b/new", str(folder / "c" / "new")):
        assert check_output(name, "--out") == Path(name)

    assert sorted(os.listdir()) == ["file", "pipe"]


def test_special_files_and_folders_are_refused(folder: Path) -> None:
    for path in ("/dev/null", "pipe"):
        assert refusal(path) == f"{path}: is not a regular file; give --out another path."
    assert refusal(str(folder)) == f"{folder}: is a directory; give --out the path of a file."


def test_output_stream_is_refused_even_as_a_file(folder: Path) -> None:
    program = "from makemore.errors import check_output; check_output({!r}, '--out')"
    for path in ("/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"):
        command = [sys.executable, "-c", program.format(path)]
        with Path("output").open("w") as output:  # a regular file behind the link
            ran = subprocess.run(command, cwd=ROOT, stdout=output, stderr=subprocess.PIPE)
        assert f"UserError: {path}: is not a regular file".encode() in ran.stderr


def test_file_as_folder_is_refused(folder: Path) -> None:
    for path in ("file/x", "file/x/y"):
        assert refusal(path) == (
            f"{path}: cannot be written ({folder / 'file'} is not a directory); "
            "give --out another path."
        )


def test_too_long_name_is_refused() -> None:
    assert "cannot be written (File name too long)" in refusal("x" * 300)


@pytest.mark.skipif(os.geteuid() == 0, reason="root can write everywhere")
def test_read_only_folder_is_refused(folder: Path) -> None:
    Path("locked").mkdir(mode=0o500)

    assert "locked is not writable" in refusal("locked/x")
