"""Whole runs: their values, files and parent, and lost answers of a server."""

from __future__ import annotations

from pathlib import Path

import pytest

from makemore.errors import Outage
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.whole_runs import FinishedRun, log_run
from tests.servers import EMPTY, FORWARD, LOSE, MlflowServer, proxy

DATASET = {"name": "words", "sha256": "0" * 64, "source": "words.txt"}


def test_whole_run_has_its_files_dataset_and_parent(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    (workdir / "notes.txt").write_text("notes")
    metrics = [("dev_loss", 2.3, 1), ("dev_loss", 2.2, 1)]
    run = FinishedRun("one", {"lr": 0.1}, metrics, files=[workdir / "notes.txt"])

    run_id = log_run(client, experiment_id, run, DATASET, parent_id="parent")

    written = client.get_run(run_id)
    assert written.info.status == "FINISHED"
    assert written.data.tags["mlflow.parentRunId"] == "parent"
    assert written.inputs.dataset_inputs[0].dataset.name == "words"
    assert [item.path for item in client.list_artifacts(run_id)] == ["notes.txt"]
    # Of two values at one step, tables show the later one.
    assert written.data.metrics == {"dev_loss": 2.2}


@pytest.mark.server
def test_run_whose_creation_was_not_answered_is_written_once(
    server: MlflowServer, workdir: Path
) -> None:
    (workdir / "notes.txt").write_text("notes")
    run = FinishedRun("one", {"lr": 0.1}, [("dev_loss", 2.3, 1)], files=[workdir / "notes.txt"])

    def choose(method: str, path: str, times: int) -> str:
        if path.endswith("runs/create"):
            return (LOSE, EMPTY, FORWARD)[min(times, 3) - 1]
        return EMPTY if path.endswith("runs/search") and times <= 8 else FORWARD

    with proxy(server.port, choose) as uri:
        client = connect(uri)
        run_id = log_run(client, get_experiment(client, "mlp"), run, DATASET)

    client = connect(server.uri)
    [written] = find_runs(client, get_experiment(client, "mlp"))
    assert (written.info.run_id, written.info.status) == (run_id, "FINISHED")
    assert written.data.metrics == {"dev_loss": 2.3}
    assert [item.path for item in client.list_artifacts(run_id)] == ["notes.txt"]


def test_refused_run_is_named_in_one_sentence(workdir: Path) -> None:
    client = connect(None)

    with pytest.raises(Outage, match="run 'one' was not written: "):
        log_run(client, "404", FinishedRun("one", {}, []), DATASET)
