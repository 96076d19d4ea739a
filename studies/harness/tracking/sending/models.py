"""Deletes checkpoints in MLflow that are not among the best of the study any more."""

from __future__ import annotations

from collections.abc import Callable

from studies.harness.tracking.connection.connect import is_server
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.runs import artifact_store
from studies.harness.tracking.sending.sender import Sender

MODEL = "model.safetensors"  # the checkpoint among a run's artifacts


def drop_models(sender: Sender, is_pending: Callable[[int], bool]) -> None:
    """Delete the checkpoints that the outbox marks, except those of trials not sent yet.

    Args:
        sender: of this launch.
        is_pending: whether a trial, given by its number, is not sent yet.
    """
    marks = sorted(sender.outbox.glob("drop-*"))
    # After the marks: a trial has its folder before its mark.
    waiting = {path.name.split("-")[0] for path in sender.outbox.glob("[0-9]*-*")} if marks else {}
    for mark in marks:
        text = mark.name.removeprefix("drop-")
        if not text.isdecimal():
            continue
        # Its artifacts must arrive first; another launch may send them.
        if is_pending(int(text)) or text in waiting:
            continue
        for run_id, artifact_uri in _runs_of(sender, int(text)):
            _delete_model(sender, run_id, artifact_uri)
        mark.unlink(missing_ok=True)


def _runs_of(sender: Sender, number: int) -> list[tuple[str, str]]:
    """Return id and artifact URI of a trial's runs that may have its checkpoint."""
    if number in sender.sent:
        run = sender.sent[number]
        return [(run.run_id, run.artifact_uri)]
    found = find_runs(sender.client, sender.experiment_id, trial=number)
    return [(run.info.run_id, run.info.artifact_uri) for run in found]


def _delete_model(sender: Sender, run_id: str, artifact_uri: str) -> None:
    store = artifact_store(sender.client, artifact_uri)
    # The client of a server asks again after a proxy's empty answer.
    server = is_server(sender.client)
    files = sender.client.list_artifacts(run_id) if server else store.list_artifacts()
    if any(item.path == MODEL for item in files):
        store.delete_artifacts(MODEL)
