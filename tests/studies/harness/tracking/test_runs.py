"""Writing MLflow runs: metrics, params and tags."""

from __future__ import annotations

import json
import math
from pathlib import Path

from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.runs import CONFIRMED_FILE, log_batch, log_confirmed

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


def test_mark_of_the_winner_moves_to_the_next_winner(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    runs = [
        client.create_run(experiment_id, tags={"trial": trial, "state": "COMPLETE"}).info.run_id
        for trial in ("0", "1")
    ]

    for winner in (0, 1):
        confirmed = {"at": 1.0 + winner, "winner": winner, "means": {winner: {"confirmed_n": 2.0}}}
        (workdir / CONFIRMED_FILE).write_text(json.dumps(confirmed))
        log_confirmed(client, experiment_id, workdir)

    first, second = (client.get_run(run_id).data for run_id in runs)
    assert "winner" not in first.tags and second.tags["winner"] == "yes"
    assert first.metrics == second.metrics == {"confirmed_n": 2.0}
