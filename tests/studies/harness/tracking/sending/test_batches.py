"""Batches: they write the same rows and artifacts as MLflow's client, each trial once."""

from __future__ import annotations

import re
import shutil
import time
import uuid
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from makemore.engines import EvalPoint
from studies.harness.tracking.connection.answers import ServerClient
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.sending import batches
from studies.harness.tracking.sending.batches import BatchSender, open_batches
from studies.harness.tracking.sending.models import drop_models
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.sending.sender import Sender
from studies.harness.tracking.sending.thread import SendingThread
from tests.conftest import wait_for
from tests.studies.harness.tracking.records import START, make_record

DATASET = {"name": "words", "sha256": "0" * 64, "source": "words.txt"}
INFINITE = float("inf")

Send = Callable[[Sequence[PendingRun]], None]


def make_sender(uri: str | None, folder: Path) -> Sender:
    """Return a sender of launch "one" whose parent run exists."""
    client = connect(uri)
    folder.mkdir()
    sender = Sender(client, get_experiment(client, "mlp"), folder, "one", DATASET)
    sender.create_parent("mlp one", {"launch": "one"}, {})
    return sender


@pytest.fixture
def sender(workdir: Path) -> Sender:
    return make_sender(None, workdir / "outbox")


@pytest.fixture
def batch(sender: Sender) -> BatchSender:
    found = open_batches(sender)
    assert found is not None
    return found


def ended(sender: Sender, number: int, **changes: Any) -> PendingRun:
    """Return an ended trial whose files are in the outbox."""
    record = make_record(number=number, **changes)
    folder = sender.outbox / f"{number:05d}-{record.tags['launch']}"
    (folder / "more").mkdir(parents=True)
    for name in ("config.toml", "model.safetensors", "more/samples.txt"):
        (folder / name).write_text(f"{name} of trial {number}")
    return PendingRun(record, ended=True, folder=folder)


def finish(sender: Sender, run: PendingRun, **changes: Any) -> None:
    """End a trial as the coordinator does."""
    done = ended(sender, run.record.number, **changes)
    run.record, run.folder, run.ended = done.record, done.folder, True


def send_trials(sender: Sender, send: Send) -> None:
    """Send trials of every kind, in several rounds."""
    other = make_record(number=1, tags={"launch": "two"}, state="RUNNING", ended=None)
    sender.send(PendingRun(other))  # a part of it, by a launch that was killed then

    running = [
        PendingRun(make_record((2.5,), number=n, state="RUNNING", reason="", ended=None))
        for n in (10, 11, 12, 13)
    ]
    losses = tuple(3 - 0.1 * i for i in range(10))
    repeat = {"launch": "one", "repeat_of": "2"}
    adopted = ended(sender, 1, tags={"launch": "two"})
    adopted.uncertain = True
    send(
        [
            adopted,
            ended(sender, 2, losses=losses, metrics={"n_params": 1000, "seconds": 1.5}),
            ended(sender, 3, losses=(2.4, 2.1, 2.6), state="PRUNED", reason="pruned"),
            ended(sender, 4, losses=(2.4, INFINITE), state="FAIL", reason="diverged at step 200"),
            ended(sender, 5, losses=(), state="FAIL", reason="out of memory", started=0.5),
            ended(sender, 6, tags=repeat),  # in one batch with the trial that it repeats
            PendingRun(make_record((), number=7, state="INTERRUPTED"), ended=True),
            *running,
        ]
    )

    again, shorter, audited, requeued = running
    again.record.points.append(EvalPoint(200, 2.4, 2.45, 0.05))
    again.record.times.append(START + 9)
    # Trained again after its host was lost: an evaluation of an earlier step and a later time.
    shorter.record.points = [EvalPoint(10, 2.4, 2.45, 0.05), EvalPoint(50, 2.3, 2.35, 0.05)]
    shorter.record.times = [START + 20, START + 21]
    finish(sender, audited, tags={"launch": "one", "audited": "yes"}, reason="x" * 9000)
    requeued.record.state, requeued.record.reason = "INTERRUPTED", "interrupted"
    requeued.ended = True
    requeued.record.ended = START + 5
    send([again, shorter, audited, requeued, ended(sender, 8, tags=repeat)])

    finish(sender, again, losses=(2.5, 2.45, 2.3))
    finish(sender, shorter)
    send([again, shorter])


def rows_of(sender: Sender) -> dict[str, list[str]]:
    """Return all rows of all tables; ids are replaced by what they identify."""
    from mlflow.store.db.base_sql_model import Base
    from sqlalchemy import select

    store = sender.client._tracking_client.store
    names: dict[str, str] = {}
    for run in find_runs(sender.client, sender.experiment_id):
        names[run.info.run_id] = f"trial {run.data.tags.get('trial')}"
    tables: dict[str, list[str]] = {}
    with store.engine.connect() as connection:
        found = {
            table.name: [dict(row._mapping) for row in connection.execute(select(table))]
            for table in Base.metadata.sorted_tables
        }
    for row in found["inputs"]:
        names[row["input_uuid"]] = f"input of {names[row['destination_id']]}"
    for row in found["datasets"]:
        names[row["dataset_uuid"]] = "dataset"
    for row in found["runs"]:
        if names[row["run_uuid"]] == "trial None":
            row["start_time"] = None  # the parent run began at another time
    for row in found["experiments"]:
        row["creation_time"] = row["last_update_time"] = None
    for name, rows in found.items():
        texts = [repr([str(value) for value in row.values()]) for row in rows]
        # The order of the rows of one run is kept, because MLflow shows the first metric first.
        texts = [re.sub("[0-9a-f]{32}", lambda m: names.get(m[0], m[0]), text) for text in texts]
        tables[name] = sorted(texts, key=lambda text: re.findall(r"trial \w+", text)[-1:])
    return tables


def artifacts_of(sender: Sender) -> dict[str, dict[str, tuple[str, int]]]:
    """Return text and permissions of all artifacts by trial and path."""
    found = {}
    for run in find_runs(sender.client, sender.experiment_id):
        root = Path(urlsplit(run.info.artifact_uri).path)
        found[run.data.tags.get("trial", "")] = {
            str(path.relative_to(root)): (path.read_text(), path.stat().st_mode)
            for path in root.rglob("*")
            if path.is_file()
        }
    return found


def make_stores(request: pytest.FixtureRequest, kind: str, folder: Path) -> list[str]:
    """Return the URIs of two empty stores."""
    if kind == "sqlite":
        paths = [folder / "mlruns" / f"{name}.db" for name in ("one", "two")]
        for path in paths:
            shutil.copy(folder / "mlruns" / "mlflow.db", path)
        return [f"sqlite:///{path}" for path in paths]
    import psycopg

    url = request.getfixturevalue("postgres")
    stores = [f"mlflow_{uuid.uuid4().hex[:12]}" for _ in range(2)]
    with psycopg.connect(f"{url}/postgres", autocommit=True) as connection:
        for store in stores:
            connection.execute(f"CREATE DATABASE {store}")
    return [f"{url}/{store}" for store in stores]


@pytest.mark.parametrize("kind", ["sqlite", pytest.param("postgresql", marks=pytest.mark.server)])
def test_batches_write_what_the_client_writes(
    request: pytest.FixtureRequest, workdir: Path, kind: str
) -> None:
    by_client, by_batch = (
        make_sender(uri, workdir / f"outbox-{i}")
        for i, uri in enumerate(make_stores(request, kind, workdir))
    )
    batch = open_batches(by_batch)
    assert batch is not None

    def send_each(runs: Sequence[PendingRun]) -> None:
        for run in runs:
            by_client.send(run)

    def send_together(runs: Sequence[PendingRun]) -> None:
        batch.send(runs)
        alone = [run for run in runs if run.alone]
        assert [run.record.number for run in alone] in ([], [1])  # MLflow had a part of trial 1
        for run in alone:
            by_batch.send(run)

    send_trials(by_client, send_each)
    send_trials(by_batch, send_together)

    expected, written = rows_of(by_client), rows_of(by_batch)
    assert len(expected["runs"]) == 12 and len(expected["metrics"]) > 100
    if kind == "postgresql":  # a changed row moves to the end
        expected = {name: sorted(rows) for name, rows in expected.items()}
        written = {name: sorted(rows) for name, rows in written.items()}
    for name in expected:
        assert written[name] == expected[name], name
    assert artifacts_of(by_batch) == artifacts_of(by_client)
    assert not list(by_batch.outbox.iterdir()) and not list(by_client.outbox.iterdir())


def trial_runs(sender: Sender) -> list[Any]:
    return find_runs(sender.client, sender.experiment_id, "tags.trial != ''")


def test_failed_batch_writes_nothing(sender: Sender, batch: BatchSender) -> None:
    good, bad = ended(sender, 1), ended(sender, 2)
    bad.record.points.append(bad.record.points[-1])  # MLflow holds a metric of one time once
    bad.record.times.append(bad.record.times[-1])

    with pytest.raises(MlflowException, match="UNIQUE"):
        batch.send([good, bad])

    assert trial_runs(sender) == []
    assert good.uncertain and bad.uncertain and good.run_id is None


def test_batch_that_fails_is_sent_one_by_one(sender: Sender) -> None:
    bad = ended(sender, 2, losses=(2.4, 2.2), metrics={"not/../valid": 1.0})
    thread = SendingThread(lambda: sender)
    for run in (ended(sender, 1), bad, ended(sender, 3)):
        thread.add(run)
    thread.closing = True
    thread.start()
    wait_for(lambda: thread.unsent == 1)
    wait_for(lambda: "not/../valid" in thread.last_error)

    # What MLflow refuses is repaired, and a later trial arrives.
    bad.record.metrics = {"n_params": 1000}
    thread.add(ended(sender, 4))
    thread.join(60)

    assert thread.unsent == 0 and not thread.is_alive()
    runs = {run.data.tags["trial"]: run.info.status for run in trial_runs(sender)}
    assert runs == {str(number): "FINISHED" for number in (1, 2, 3, 4)}
    assert len(trial_runs(sender)) == 4


def test_trial_of_a_lost_commit_is_sent_once(sender: Sender, batch: BatchSender) -> None:
    first = ended(sender, 1)
    batch.send([first])
    # The connection was lost after the commit: the launch does not know that MLflow has the run.
    unsure = ended(sender, 1)
    unsure.uncertain = True
    unknown = ended(sender, 2)
    unknown.uncertain = True

    batch.send([unsure, unknown])

    assert unsure.alone and not unsure.sent and unknown.sent
    sender.send(unsure)
    assert unsure.run_id == first.run_id and len(trial_runs(sender)) == 2


def test_run_that_was_deleted_does_not_stop_the_others(sender: Sender) -> None:
    thread = SendingThread(lambda: sender)
    deleted, kept = (
        PendingRun(make_record((2.5,), number=n, state="RUNNING", reason="", ended=None))
        for n in (1, 2)
    )
    thread.add(deleted)
    thread.add(kept)
    thread.start()
    wait_for(lambda: deleted.points_sent == 1 and kept.points_sent == 1)
    sender.client.delete_run(deleted.run_id)

    finish(sender, deleted)
    finish(sender, kept)
    thread.wake.set()
    wait_for(lambda: thread.unsent == 1)

    assert "'active' state" in thread.last_error
    assert [run.info.status for run in trial_runs(sender)] == ["FINISHED"]
    sender.client.restore_run(deleted.run_id)
    thread.closing = True
    thread.wake.set()
    thread.join(60)
    assert thread.unsent == 0


def test_files_that_cannot_be_stored_keep_the_run_open(
    sender: Sender, batch: BatchSender, workdir: Path
) -> None:
    blocked, free = ended(sender, 1), ended(sender, 2)
    assert blocked.folder is not None
    config = blocked.folder / "config.toml"
    config.unlink()
    config.symlink_to(workdir / "gone")  # cannot be read, not even by root

    batch.send([blocked, free])

    states = {run.data.tags["trial"]: run.info.status for run in trial_runs(sender)}
    assert states == {"1": "RUNNING", "2": "FINISHED"}
    assert blocked.alone and blocked.uncertain and blocked.folder.exists()
    config.unlink()
    config.write_text("there again")
    sender.send(blocked)
    assert blocked.sent and not blocked.folder.exists()


def test_dropped_checkpoint_of_a_batch_is_found(sender: Sender, batch: BatchSender) -> None:
    batch.send([ended(sender, 1), ended(sender, 2)])
    (sender.outbox / "drop-00001").touch()

    drop_models(sender, lambda number: False)

    files = artifacts_of(sender)
    assert set(files["1"]) == {"config.toml", "more/samples.txt"}
    assert "model.safetensors" in files["2"]


def test_other_version_of_mlflow_gets_no_batches(
    sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "TESTED", "3.16.")

    assert open_batches(sender) is None
    thread = SendingThread(lambda: sender)
    thread.add(ended(sender, 1))
    thread.closing = True
    thread.start()
    thread.join(60)
    assert [run.info.status for run in trial_runs(sender)] == ["FINISHED"]


def test_server_gets_no_batches(workdir: Path) -> None:
    client = ServerClient(MlflowClient("http://127.0.0.1:9"))  # connects at its first call only
    assert open_batches(Sender(client, "1", workdir, "one", DATASET)) is None


def test_new_runs_are_sorted_by_time() -> None:
    from studies.harness.tracking.sending.tables import new_id

    first = new_id()
    time.sleep(0.002)
    ids = [first, new_id()]

    assert ids == sorted(ids) and all(re.fullmatch("[0-9a-f]{32}", found) for found in ids)
