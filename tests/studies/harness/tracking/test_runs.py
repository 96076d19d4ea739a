"""Writing MLflow runs: metrics, params and tags."""

from __future__ import annotations

import math
from pathlib import Path

from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.runs import log_batch

DATASET = {"name": "words", "sha256": "0" * 64, "source": "words.txt"}


def test_infinite_metrics_are_left_out(workdir: Path) -> None:
    client = connect(None)
    run_id = client.create_run(get_experiment(client, "mlp")).info.run_id

    log_batch(client, run_id, [("a", 1.0, 0, 1.0), ("b", math.inf, 0, 1.0), ("c", math.nan, 0, 1)])

    assert client.get_run(run_id).data.metrics == {"a": 1.0}


def test_more_than_a_thousand_metrics_are_written(workdir: Path) -> None:
    client = connect(None)
    run_id = client.create_run(get_experiment(client, "mlp")).info.run_id

    rows = [("loss", float(step), step, 1.0) for step in range(2001)]
    log_batch(client, run_id, rows, params={"lr": 0.1}, tags={"state": "RUNNING"})

    assert len(client.get_metric_history(run_id, "loss")) == 2001
    run = client.get_run(run_id)
    assert run.data.params == {"lr": "0.1"} and run.data.tags["state"] == "RUNNING"
