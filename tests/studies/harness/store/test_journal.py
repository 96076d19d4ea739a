"""The journal: Optuna's own contract for storages, torn records, full disks and killed owners."""

from __future__ import annotations

import os
import random
import resource
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.testing.pytest_storages import StorageTestCase

from makemore.errors import UserError
from studies.harness.store.journal import Journal, check_journal, drop_torn_line, format_line
from studies.harness.store.storage import StudyJournal
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
        return StudyJournal(Journal(tmp_path / "study.journal"))


@pytest.fixture
def journal(tmp_path: Path) -> Journal:
    """A journal with two records."""
    journal = Journal(tmp_path / "study.journal")
    journal.append_logs(RECORDS)
    return journal


def read(journal: Journal) -> list[dict[str, Any]]:
    return list(journal.read_logs(0))


def test_journal_of_plain_optuna_is_read_and_continued(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    JournalFileBackend(str(path)).append_logs(RECORDS)
    journal = Journal(path)
    assert read(journal) == RECORDS

    journal.append_logs([{"op_code": 2}])

    assert read(journal) == [*RECORDS, {"op_code": 2}]
    # Plain Optuna reads the lines with a checksum, too.
    last = list(JournalFileBackend(str(path)).read_logs(0))[-1]
    assert last["op_code"] == 2


def test_study_is_readable_by_plain_optuna(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="a", storage=JournalStorage(Journal(path)))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)

    plain = optuna.load_study(study_name="a", storage=JournalStorage(JournalFileBackend(str(path))))

    assert plain.get_trials() == study.get_trials()


def test_no_flipped_bit_changes_a_trial_unnoticed(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    study = optuna.create_study(study_name="a", storage=JournalStorage(Journal(path)))
    study.optimize(lambda trial: trial.suggest_float("x", 0, 1), n_trials=3)
    content = path.read_bytes()
    trials = study.get_trials()
    whole = len(content) - 1  # without its line end, the last record is a partial one

    unnoticed = []
    for place in random.Random(7).sample(range(8 * whole), 1000):
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        number = content[: place // 8].count(b"\n") + 1
        try:
            read = optuna.load_study(study_name="a", storage=JournalStorage(Journal(path)))
            if read.get_trials() != trials:
                unnoticed.append(place)
        except UserError as error:
            assert f"study.journal, line {number}: the record is damaged" in str(error)
        assert path.read_bytes() == damaged

    assert unnoticed == []


def test_line_that_another_process_completes_is_not_damaged(journal: Journal) -> None:
    path = journal._path
    record = format_line({"op_code": 2, "name": "c"})
    with path.open("ab") as file:
        file.write(record[:9])
    assert read(journal) == RECORDS

    with path.open("ab") as file:
        file.write(record[9:])

    assert list(journal.read_logs(2)) == [{"op_code": 2, "name": "c"}]


def test_removed_journal_is_not_created_again(journal: Journal) -> None:
    list(journal.read_logs(0))
    journal._path.unlink()

    for use in (lambda: journal.append_logs([{"op_code": 2}]), lambda: list(journal.read_logs(2))):
        with pytest.raises(UserError, match="the journal was removed while it was in use"):
            use()
    assert not journal._path.exists()


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


def test_two_owners_that_take_turns_read_the_same_records(tmp_path: Path) -> None:
    path = tmp_path / "study.journal"
    owners = [Journal(path), Journal(path)]
    seen: list[list[dict[str, Any]]] = [[], []]
    rng = random.Random(3)
    for number in range(300):
        who = rng.randrange(2)
        if rng.random() < 0.5:
            owners[who].append_logs([{"op_code": 2, "n": number}] * rng.randint(1, 3))
        else:
            seen[who] += owners[who].read_logs(len(seen[who]))

    for journal, records in zip(owners, seen, strict=True):
        records += journal.read_logs(len(records))
    assert seen[0] == seen[1] == list(Journal(path).read_logs(0))
    # An owner may also be asked again for what it has read.
    assert list(owners[0].read_logs(50)) == seen[0][50:]
