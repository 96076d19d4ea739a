"""The end of a study: the history, files, note and views of its parent run."""

from __future__ import annotations

import json

from makemore.config import Config
from studies.harness.store.paths import MLRUNS
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.tracking.connection.connect import connect
from tests.studies.conftest import Launcher, artifacts_of, runs_of, trials_of


def test_parent_run_has_history_and_report(launch: Launcher) -> None:
    launch(trials=5)

    client = connect(None)
    runs = runs_of("small")
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    assert parent.info.status == "FINISHED"
    history = client.get_metric_history(parent.info.run_id, "best_dev_loss")
    best = [m.value for m in sorted(history, key=lambda m: (m.timestamp, -m.value))]
    # The best loss so far never rises.
    assert best == sorted(best, reverse=True)
    assert min(best) == dev_loss(ranked(trials_of("small"))[0])
    pictures = {"history.png", "importances.png", "parallel.png", "slices.png"}
    assert artifacts_of(parent) == {
        "trials.csv",
        "report.html",
        "note.md",
        "best.json",
        "confirmed.json",
        *pictures,
    }
    report = (MLRUNS / "reports" / "small.html").read_text(encoding="utf-8")
    assert report.startswith("<!doctype html>")
    assert parent.data.tags["mlflow.note.content"].startswith("## small: dev loss")

    # No param has the plain name of a setting: it would look like the best value, which is a tag.
    params, tags = parent.data.params, parent.data.tags
    searched = trials_of("small")[0].params.keys()
    assert not Config.model_fields.keys() & params.keys() and params["base.optimizer"] == "sgd"
    assert not {f"base.{name}" for name in searched} & params.keys()
    assert params["range.n_hidden"] == "50 to 300" and params["range.lr"] == "0.001 to 1.0 (log)"
    winner = ranked(trials_of("small"))[0].params
    assert {name: tags[f"winner.{name}"] for name in searched} == {
        name: str(value) for name, value in winner.items()
    }

    # The experiment carries the views that studies/ui.py opens.
    tags = client.get_experiment(parent.info.experiment_id).tags
    assert json.loads(tags["mlflow.sharedViewState.trials"])["name"] == "Trials by dev loss"
    parents = {run.data.tags["mlflow.parentRunId"] for run in runs if "trial" in run.data.tags}
    assert parents == {parent.info.run_id}
