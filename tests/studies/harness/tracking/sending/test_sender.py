"""The sender: each call sends only what MLflow does not have, and never creates a second run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.sending.models import drop_models
from studies.harness.tracking.sending.pending import PendingRun
from studies.harness.tracking.sending.sender import Sender
from tests.studies.harness.tracking.records import make_record

DATASET = {"name": "words", "sha256": "0" * 64, "source": "words.txt"}


@pytest.fixture
def sender(workdir: Path) -> Sender:
    """A sender of launch "one" whose parent run exists."""
    client = connect(None)
    sender = Sender(client, get_experiment(client, "mlp"), workdir / "outbox", "one", DATASET)
    sender.outbox.mkdir()
    sender.create_parent("mlp one", {"launch": "one"}, {})
    return sender


def trial_runs(sender: Sender) -> list[Any]:
    return find_runs(sender.client, sender.experiment_id, "tags.trial != ''")


def test_running_trial_is_sent_piece_by_piece(sender: Sender) -> None:
    complete = make_record()
    record = make_record((2.4,), state="RUNNING", reason="", ended=None)
    run = PendingRun(record)

    sender.send(run)
    assert (run.points_sent, run.inputs_sent, run.sent) == (1, True, False)
    assert trial_runs(sender)[0].info.status == "RUNNING"

    record.points, record.times = complete.points, complete.times
    record.state, record.reason = "COMPLETE", "finished"
    run.ended = True
    sender.send(run)

    [written] = trial_runs(sender)
    assert run.sent and written.info.status == "FINISHED"
    assert written.info.run_name == "2.2000 · t007"
    assert written.data.tags["state"] == "COMPLETE"
    assert written.data.tags["mlflow.parentRunId"] == sender.parent_id
    history = sender.client.get_metric_history(written.info.run_id, "dev_loss")
    assert [metric.value for metric in history] == [2.4, 2.2]


def test_run_of_a_lost_answer_is_found_again(sender: Sender) -> None:
    sender.send(PendingRun(make_record((2.4,), state="RUNNING")))
    # MLflow created the run, but its answer was lost.
    unsure = PendingRun(make_record(), ended=True, uncertain=True)

    sender.send(unsure)

    [written] = trial_runs(sender)
    assert unsure.run_id == written.info.run_id and written.info.status == "FINISHED"


def test_requeued_trial_that_mlflow_does_not_know_is_not_sent(sender: Sender) -> None:
    run = PendingRun(make_record((), state="INTERRUPTED"), ended=True)

    sender.send(run)

    assert run.sent and trial_runs(sender) == []


def test_seed_repeat_is_nested_under_the_run_it_repeats(sender: Sender) -> None:
    original = PendingRun(make_record(), ended=True)
    sender.send(original)
    tags = {"launch": "one", "repeat_of": "7"}

    sender.send(PendingRun(make_record(number=8, tags=tags), ended=True))

    runs = {run.data.tags["trial"]: run for run in trial_runs(sender)}
    assert runs["8"].data.tags["mlflow.parentRunId"] == original.run_id


def test_checkpoint_of_a_pending_trial_is_dropped_later(sender: Sender, workdir: Path) -> None:
    folder = workdir / "files"
    folder.mkdir()
    for name in ("config.toml", "model.safetensors"):
        (folder / name).touch()
    run = PendingRun(make_record(), ended=True, folder=folder)
    sender.send(run)
    mark = sender.outbox / "drop-00007"
    mark.touch()

    def files() -> set[str]:
        return {item.path for item in sender.client.list_artifacts(run.run_id)}

    drop_models(sender, lambda number: True)
    assert "model.safetensors" in files() and mark.exists()

    drop_models(sender, lambda number: False)
    assert files() == {"config.toml"} and not mark.exists()
    # The outbox folder of a sent trial is removed.
    assert not folder.exists()
