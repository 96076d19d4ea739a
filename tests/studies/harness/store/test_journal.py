"""The journal: Optuna's own contract for storages, torn records, full disks and killed owners."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from optuna.storages import JournalStorage
from optuna.testing.pytest_storages import StorageTestCase

from studies.harness.store.journal import Journal, check_journal, drop_torn_line
from tests.conftest import ROOT

RECORDS = [{"op_code": 0, "name": "a"}, {"op_code": 1, "name": "b"}]
HOLD_LOCK = """
import sys, time
from pathlib import Path
from studies.harness.store.journal import _Lock
_Lock(Path(sys.argv[1])).acquire()
print("locked", flush=True)
time.sleep(60)
"""


class TestJournalContract(StorageTestCase):
    @pytest.fixture
    def storage(self, tmp_path: Path) -> JournalStorage:
        return JournalStorage(Journal(tmp_path / "study.journal"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with two records."""
    journal = Journal(tmp_path / "study.journal")
    journal.append_logs(RECORDS)
    return journal


def read(journal: Journal) -> list[dict[str, Any]]:
    return list(journal.read_logs(0))


def test_torn_line_is_dropped_at_next_append(journal: Journal) -> None:
    with journal._path.open("ab") as file:
        file.write(b'{"op_code":4,"worker')

    journal.append_logs([{"op_code": 2}])

    assert read(journal) == [*RECORDS, {"op_code": 2}]


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (b"", 0),
        (b"whole\n", 6),
        (b"whole\ntorn", 6),
        (b"torn", 0),
        # The torn line is longer than one block that is read.
        (b"whole\n" + b"x" * 10_000, 6),
        (b"x" * 4095 + b"\n" + b"y" * 4096, 4096),
    ],
)
def test_only_the_incomplete_last_line_is_cut(tmp_path: Path, content: bytes, size: int) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)

    with path.open("rb+") as file:
        assert drop_torn_line(file) == file.tell() == size

    assert path.read_bytes() == content[:size]


def test_failed_write_leaves_no_partial_record(journal: Journal) -> None:
    size = journal._path.stat().st_size
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    # A limit on the size of files makes the kernel write only a part, as on a full disk.
    resource.setrlimit(resource.RLIMIT_FSIZE, (size + 10, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            journal.append_logs([{"op_code": 2, "name": "x" * 100}])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert journal._path.stat().st_size == size
    journal.append_logs([{"op_code": 3}])
    assert read(journal) == [*RECORDS, {"op_code": 3}]


def test_lock_of_a_killed_process_is_free(journal: Journal) -> None:
    command = [sys.executable, "-c", HOLD_LOCK, str(journal._path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT) as process:
        assert process.stdout
        assert process.stdout.readline() == "locked\n"
        os.kill(process.pid, signal.SIGKILL)

    begun = time.monotonic()
    journal.append_logs([{"op_code": 2}])

    # Optuna's own lock would wait for 30 s.
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("content", [b"notes\n", b"notes without a line end", b'{"model": 1}\n'])
def test_other_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "notes"
    path.write_bytes(content)

    with pytest.raises(ValueError, match="not a journal"):
        check_journal(path)


@pytest.mark.parametrize("content", [b"", b'{"op_code":0}\n', b'{"op_co'])
def test_journal_with_torn_first_record_is_accepted(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "study.journal"
    path.write_bytes(content)

    check_journal(path)

    check_journal(tmp_path / "absent.journal")
