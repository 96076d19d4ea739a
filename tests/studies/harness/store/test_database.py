"""Databases as Optuna storages: outages, repeated calls, and locks between machines."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.trial import TrialState
from sqlalchemy.exc import OperationalError

from studies.harness.store import database
from studies.harness.store.database import PatientStorage, open_database
from studies.harness.store.locks import exclusive
from studies.harness.store.storage import open_storage
from studies.harness.store.text import with_psycopg

OUTAGE = OperationalError("SELECT 1", {}, Exception("server closed the connection"))


@pytest.fixture
def patient(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> PatientStorage:
    """A storage whose server is a SQLite file, so that it fails only where a test says so."""
    monkeypatch.setattr(database, "RETRY", 0.01)
    return PatientStorage(f"sqlite:///{tmp_path}/optuna.db")


class Fails:
    """Calls a method, and raises an outage before or after it, for the first few calls."""

    def __init__(self, method: Any, times: int, after: bool = False) -> None:
        self.method = method
        self.times = times
        self.after = after

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self.times and not self.after:
            self.times -= 1
            raise StorageInternalError from OUTAGE
        result = self.method(*args, **kwargs)
        if self.times:
            self.times -= 1
            raise StorageInternalError from OUTAGE
        return result


def test_call_is_repeated_until_the_server_answers(
    patient: PatientStorage, caplog: pytest.LogCaptureFixture
) -> None:
    assert patient.patiently(Fails(lambda: "answer", times=3)) == "answer"
    assert [r.message for r in caplog.records] == [
        "The storage does not answer ((builtins.Exception) server closed the connection). "
        "Trying again for 60 s."
    ]


def test_long_outage_is_raised_and_later_calls_do_not_wait(
    patient: PatientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "_patience", 0.1)
    outage = Fails(lambda: "answer", times=10**6)
    with pytest.raises(StorageInternalError):
        patient.patiently(outage)
    begun = outage.times
    with pytest.raises(StorageInternalError):
        patient.patiently(outage)
    assert begun - outage.times == 1

    assert patient.patiently(lambda: "back") == "back"
    with pytest.raises(StorageInternalError):
        patient.patiently(outage)
    assert begun - outage.times > 2  # it waits again


def test_call_that_always_fails_ends_although_others_succeed(
    patient: PatientStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patient, "_patience", 0.2)
    outage = Fails(lambda: "answer", times=10**6)

    def fail_next_to_a_heartbeat() -> Any:
        patient.patiently(lambda: "another call succeeds")
        return outage()

    with pytest.raises(StorageInternalError):
        patient.patiently(fail_next_to_a_heartbeat)


def test_interrupted_launch_does_not_wait(patient: PatientStorage) -> None:
    patient.hurry()
    begun = time.monotonic()
    with pytest.raises(StorageInternalError):
        patient.patiently(Fails(lambda: "answer", times=10**6))
    assert time.monotonic() - begun < database.HURRY + 1


def test_other_errors_are_raised_at_once(patient: PatientStorage) -> None:
    call = Fails(lambda: optuna.load_study(study_name="absent", storage=patient), times=0)
    with pytest.raises(KeyError):
        patient.patiently(call)


@pytest.mark.parametrize("after", [False, True], ids=["not obeyed", "obeyed"])
def test_end_of_a_trial_is_stored_once(
    patient: PatientStorage, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    study = optuna.create_study(storage=patient)
    trial = study.ask()
    method = Fails(optuna.storages.RDBStorage.set_trial_state_values, times=1, after=after)
    monkeypatch.setattr(
        optuna.storages.RDBStorage,
        "set_trial_state_values",
        lambda *args, **kwargs: method(*args, **kwargs),
    )
    study.tell(trial, 2.0)

    assert method.times == 0
    assert [(t.state, t.value) for t in study.trials] == [(TrialState.COMPLETE, 2.0)]
    with pytest.raises(UpdateFinishedTrialError):  # no outage: a second end is still refused
        study._storage.set_trial_state_values(trial._trial_id, TrialState.PRUNED)


def test_every_call_of_optuna_is_patient() -> None:
    inherited = {
        name
        for name in optuna.storages.BaseStorage.__abstractmethods__
        if getattr(PatientStorage, name) is getattr(optuna.storages.RDBStorage, name)
    }
    assert inherited == set()


def test_sqlite_file_is_not_waited_for(tmp_path: Path) -> None:
    assert not isinstance(open_database(f"sqlite:///{tmp_path}/optuna.db"), PatientStorage)


@pytest.mark.server
def test_lock_holds_between_machines(
    postgres_storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    order = []
    study = optuna.create_study(storage=open_storage(postgres_storage, "mlp"))
    other = open_database(with_psycopg(postgres_storage))  # with no lock file in common
    assert isinstance(other, PatientStorage)

    def wait_for_lock() -> None:
        with other.locked("ask-mlp"):
            order.append("second")

    thread = threading.Thread(target=wait_for_lock)
    with exclusive("ask-mlp", study._storage):
        thread.start()
        with other.locked("ask-another"):  # another lock is free
            time.sleep(0.5)
        order.append("first")
    thread.join(10)

    assert order == ["first", "second"]
