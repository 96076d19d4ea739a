"""The tracker: the runs in MLflow equal the trials in Optuna's storage."""

from __future__ import annotations

from makemore.config import read_config
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, trial_config
from studies.harness.tracking.connection.connect import connect
from tests.studies.conftest import Launcher, artifacts_of, runs_by_trial, runs_of, violations


def test_each_trial_has_one_equal_run(launch: Launcher) -> None:
    assert launch(trials=6, prune=False) == 0

    study = load_study("small", None)
    client = connect(None)
    runs = runs_by_trial("small")
    assert sorted(runs) == list(range(6))
    assert len(runs_of("small")) == 7  # with the parent run
    for trial in study.get_trials():
        run = runs[trial.number]
        assert trial.state.name == run.data.tags["state"] == "COMPLETE"
        assert run.info.status == "FINISHED"
        # MLflow's tables show the last value of a metric: it must be the checkpoint's loss.
        assert run.data.metrics["dev_loss"] == trial.value == dev_loss(trial)
        history = client.get_metric_history(run.info.run_id, "current_dev_loss")
        assert {metric.step: metric.value for metric in history} == trial.intermediate_values
        lowest = client.get_metric_history(run.info.run_id, "dev_loss")
        # One point a step, the last one too.
        assert sorted(metric.step for metric in lowest) == list(trial.intermediate_values)
        assert not client.get_metric_history(run.info.run_id, "lr")
        params = {name: str(value) for name, value in trial.params.items()}
        assert {name: run.data.params[name] for name in params} == params
        assert artifacts_of(run) == {"config.toml", "model.safetensors", "samples.txt"}
        path = client.download_artifacts(run.info.run_id, "config.toml")
        assert read_config(path) == trial_config(study, trial)
    assert violations("small") == []
    assert not list((MLRUNS / "outbox" / "small").iterdir())
