"""The MLflow runs of a retraining."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from experiments.retraining.results import LOSSES
from makemore.config import read_config
from makemore.errors import Outage
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.whole_runs import FinishedRun, log_run

Retrain = Callable[..., Any]


def test_parent_run_has_a_child_per_seed(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--seeds", 2, "--json")

    client = connect(None)
    runs = find_runs(client, get_experiment(client, "retrain"))
    parent = next(run for run in runs if run.info.run_id == ran.json["mlflow_run_id"])
    children = {int(run.data.params["seed"]): run for run in runs if run is not parent}
    assert all(run.info.status == "FINISHED" for run in runs) and len(runs) == 3
    parents = {run.data.tags["mlflow.parentRunId"] for run in children.values()}
    assert parents == {parent.info.run_id}
    assert parent.data.tags["origin.study"] == "small"
    assert parent.info.run_name.endswith(" · small")
    # The run says how the test split was used.
    use = "read once in this run, after all training; nothing was chosen by it"
    assert parent.data.tags["test_split"] == use
    assert f"The test split was {use}." in ran.err

    assert {name: parent.data.metrics[name] for name in LOSSES} == ran.json["mean"]
    assert {name: parent.data.metrics[f"{name}_sd"] for name in LOSSES} == ran.json["sd"]
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files == {"config.toml", "model.safetensors", "samples.txt", "comparison.png"}

    for row in ran.json["seeds"]:
        run = children[row["seed"]]
        # Tables show the exact losses; the curve has a point per evaluation.
        assert [run.data.metrics[name] for name in LOSSES] == [row[name] for name in LOSSES]
        curve = client.get_metric_history(run.info.run_id, "current_dev_loss")
        assert {point.step for point in curve} == set(range(4, 41, 4))
        # A running mean over minibatches has another name than the exact train loss.
        history = {
            name: {point.step for point in client.get_metric_history(run.info.run_id, name)}
            for name in ("train_loss", "dev_loss", "minibatch_loss", "lr")
        }
        assert history["train_loss"] == history["dev_loss"] == {40}
        assert len(history["minibatch_loss"]) == 10 and history["lr"] == set()
    config = read_config(exported)
    assert children[config.seed].data.params["lr"] == str(config.lr)


def test_refused_run_is_one_sentence(workdir: Path) -> None:
    run = FinishedRun("x", {}, [])
    dataset = {"name": "", "sha256": "", "source": ""}

    with pytest.raises(Outage) as refused:
        log_run(connect(None), "999", run, dataset)

    message = str(refused.value)
    assert message == "run 'x' was not written: No Experiment with id=999 exists"
