"""The doctor: each kind of damage is found by its name, and repaired."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.trial import TrialState

from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.repairs.doctor import Violation, check
from tests.studies.conftest import artifacts_of

DOCTOR = "studies/doctor.py"


@pytest.fixture
def study(launch: Callable[..., int]) -> Any:
    """A study of two complete trials whose stores agree."""
    assert launch(trials=2, prune=False) == 0
    assert violations() == []
    return load_study("small", None)


def violations() -> list[Violation]:
    client = connect(None)
    outbox = MLRUNS / "outbox" / "small"
    return check(load_study("small", None), client, get_experiment(client, "small"), outbox)


def kinds() -> list[str]:
    return [violation.kind for violation in violations()]


def run_of(trial: int) -> Any:
    client = connect(None)
    return find_runs(client, get_experiment(client, "small"), trial=trial)[0]


def test_agreement_is_said_in_one_sentence(study: Any, run_file: Any) -> None:
    ran = run_file(DOCTOR, "small")

    assert (ran.code, ran.out.splitlines()) == (
        0,
        [
            "Study small: 2 complete.",
            "Optuna and MLflow agree: each finished trial has one run, with its values.",
        ],
    )


def test_deleted_run_is_written_again(study: Any, run_file: Any) -> None:
    connect(None).delete_run(run_of(1).info.run_id)
    [violation] = violations()
    assert violation.kind == "trial without run"
    assert violation.detail == "trial 1 is COMPLETE, but MLflow has no finished run of it"

    ran = run_file(DOCTOR, "small", "--repair", "--json")

    assert ran.code == 0 and "Repaired 1 of 1." in ran.err
    assert ran.json == {"study": "small", "clean": True, "violations": []}
    # Its files were still on the disk.
    assert "restored" not in run_of(1).data.tags
    assert artifacts_of(run_of(1)) == {"config.toml", "model.safetensors", "samples.txt"}


def test_run_written_again_without_files_says_so(study: Any, run_file: Any) -> None:
    run = run_of(1)
    connect(None).delete_run(run.info.run_id)
    shutil.rmtree(run.info.artifact_uri.removeprefix("file://"))

    ran = run_file(DOCTOR, "small", "--repair", "--json")

    assert ran.json == {"study": "small", "clean": True, "violations": []}
    assert "the checkpoint and the samples are lost" in run_of(1).data.tags["restored"]


def test_run_with_other_values_is_replaced(study: Any, run_file: Any) -> None:
    client = connect(None)
    run = run_of(1)
    client.log_metric(run.info.run_id, "dev_loss", 9.0, step=10_000)
    client.set_tag(run.info.run_id, "state", "PRUNED")
    loss = study.trials[1].value

    [violation] = violations()

    assert violation.kind == "run differs"
    assert violation.detail == (
        "trial 1: state is COMPLETE in Optuna, PRUNED (FINISHED) in MLflow; "
        f"dev_loss is {loss} in Optuna, 9.0 in MLflow"
    )
    assert run_file(DOCTOR, "small", "--repair").code == 0
    assert run_of(1).info.run_id != run.info.run_id


def test_missing_artifacts_are_listed_but_not_repaired(study: Any, run_file: Any) -> None:
    shutil.rmtree(run_of(0).info.artifact_uri.removeprefix("file://"))

    ran = run_file(DOCTOR, "small")

    assert ran.code == 1
    assert "  missing artifacts: the run of trial 0 lacks config.toml, samples.txt" in ran.out
    assert run_file(DOCTOR, "small", "--repair", "--json").json["clean"] is False


def test_surplus_and_unknown_runs_are_deleted(study: Any, run_file: Any) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "small")
    for trial in (1, 99):
        tags = {"trial": str(trial), "state": "COMPLETE"}
        made = client.create_run(experiment_id, start_time=1, tags=tags)
        client.set_terminated(made.info.run_id, "FINISHED")

    assert kinds() == ["more than one finished run", "run without trial"]
    assert run_file(DOCTOR, "small", "--repair").code == 0


def copy_run(run: Any, **changes: str) -> str:
    """Create a newer run with the values of a run, but without files; returns its id."""
    client = connect(None)
    tags = {**run.data.tags, **changes}
    made = client.create_run(run.info.experiment_id, tags=tags, run_name=run.info.run_name)
    run_id = str(made.info.run_id)
    for key, value in run.data.params.items():
        client.log_param(run_id, key, value)
    for key, value in run.data.metrics.items():
        client.log_metric(run_id, key, value)
    return run_id


def test_run_that_has_the_files_is_kept(study: Any, run_file: Any) -> None:
    run = run_of(1)
    connect(None).set_terminated(copy_run(run), "FINISHED")
    assert run_of(1).info.run_id != run.info.run_id
    assert kinds() == ["more than one finished run"]

    assert run_file(DOCTOR, "small", "--repair").code == 0

    assert run_of(1).info.run_id == run.info.run_id
    assert artifacts_of(run_of(1)) == {"config.toml", "model.safetensors", "samples.txt"}


def test_running_run_next_to_a_finished_one_is_deleted(study: Any, run_file: Any) -> None:
    run = run_of(1)
    copy_run(run, state="RUNNING")
    assert kinds() == ["two runs of one launch"]

    assert run_file(DOCTOR, "small", "--repair").code == 0

    client = connect(None)
    runs = find_runs(client, get_experiment(client, "small"), trial=1)
    assert [run.info.run_id for run in runs] == [run.info.run_id]


def test_interrupted_run_of_the_same_launch_is_deleted(study: Any, run_file: Any) -> None:
    run = run_of(1)
    connect(None).set_terminated(copy_run(run, state="INTERRUPTED"), "KILLED")
    assert kinds() == ["two runs of one launch"]

    assert run_file(DOCTOR, "small", "--repair").code == 0

    client = connect(None)
    [kept] = find_runs(client, get_experiment(client, "small"), trial=1)
    assert kept.info.run_id == run.info.run_id


def test_seed_repeats_follow_their_restored_run(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=2, prune=False, repeats=2)
    client = connect(None)
    repeats = find_runs(client, get_experiment(client, "small"), repeat_of=1)
    client.delete_run(run_of(1).info.run_id)
    assert kinds() == ["trial without run", "deleted parent run", "deleted parent run"]

    assert run_file(DOCTOR, "small", "--repair").code == 0

    assert len(repeats) == 2
    for repeat in repeats:
        tags = client.get_run(repeat.info.run_id).data.tags
        assert tags["mlflow.parentRunId"] == run_of(1).info.run_id


def test_trials_of_a_deleted_launch_get_a_parent(study: Any, run_file: Any) -> None:
    client = connect(None)
    client.delete_run(run_of(1).data.tags["mlflow.parentRunId"])
    assert kinds() == ["deleted parent run", "deleted parent run"]

    assert run_file(DOCTOR, "small", "--repair").code == 0


def test_leftovers_of_a_dead_launch_are_found_and_repaired(study: Any, run_file: Any) -> None:
    trial = study.ask()
    trial.set_user_attr("seed", 1)
    trial.set_user_attr("launch", "dead")
    client = connect(None)
    tags = {"launch": "dead"}
    client.create_run(get_experiment(client, "small"), run_name="small dead", tags=tags)
    (Path("mlruns/outbox/small") / "00002-dead").mkdir()

    assert kinds() == [
        "running trial of a dead launch",
        "open run of a dead launch",
        "not sent to MLflow",
    ]
    ran = run_file(DOCTOR, "small", "--repair")
    assert ran.code == 0, ran.out
    assert load_study("small", None).trials[2].state == TrialState.WAITING


def test_parameters_trained_twice_are_found(study: Any) -> None:
    study.add_trial(study.trials[1])

    assert "parameters trained twice" in kinds()


def test_unknown_study_is_refused(workdir: Path, run_file: Any) -> None:
    assert run_file(DOCTOR, "mlp").refusal == (
        f"no study 'mlp' in {workdir}/mlruns/optuna; run the command from the folder that holds "
        "mlruns/, or give --storage."
    )
