"""Repeating the command of a complete study: it ends at once, unless something is left to do."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from makemore.errors import UserError
from studies.harness.store.paths import MLRUNS, report_path
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect
from tests.conftest import ROOT
from tests.studies.conftest import Launcher, assert_whole, outcomes_of, runs_of, trials_of


def parents_of(study: str) -> list[Any]:
    return [run for run in runs_of(study) if "trial" not in run.data.tags]


def launches_of(study: str) -> list[str]:
    return [key for key in load_study(study, None).user_attrs if key.startswith("launch:")]


def test_complete_study_ends_at_once(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    flags = {"trials": 3, "repeats": 2, "prune": False, "json": True}
    assert launch(**flags) == 0
    first = json.loads(capsys.readouterr().out)
    before = (outcomes_of("small"), len(runs_of("small")), launches_of("small"))

    assert launch(**flags) == 0

    printed = capsys.readouterr()
    assert "Study small already has 3 trials; give a larger --trials" in printed.err
    assert "Training" not in printed.err
    assert (outcomes_of("small"), len(runs_of("small")), launches_of("small")) == before
    again = json.loads(printed.out)
    assert again.keys() == first.keys() and again["ended_now"] == 0
    for key in ("trials", "best_trial", "report", "mlflow_experiment_id", "mlflow_run_id"):
        assert again[key] == first[key]


def test_study_that_a_time_limit_ended_is_complete_at_its_own_number(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=2, repeats=2)
    launch(trials=500, repeats=2, minutes=0.03, json=True)
    ended = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert ended["timed_out"] and 2 <= ended["trials"] < 500
    before = (outcomes_of("small"), len(runs_of("small")), launches_of("small"))

    assert launch(trials=ended["trials"], repeats=2, minutes=0.03) == 0

    # The trials that the limit interrupted wait for a larger total; they need no launch.
    assert f"Study small already has {ended['trials']} trials" in capsys.readouterr().out
    assert (outcomes_of("small"), len(runs_of("small")), launches_of("small")) == before


def test_complete_study_loads_neither_torch_nor_mlflow(names: Path, workdir: Path) -> None:
    flags = "--names names.txt --trials 2 --steps 20 --repeats 0 --device cpu --study two".split()
    program = f"""
import runpy, sys
sys.argv = ["mlp.py", *{flags}]
try:
    runpy.run_path({str(ROOT / "studies" / "mlp.py")!r}, run_name="__main__")
finally:
    print([name for name in ("torch", "mlflow", "numba") if name in sys.modules])
"""

    def run() -> str:
        command = [sys.executable, "-c", program]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    assert run().splitlines()[-1] == "['torch', 'mlflow', 'numba']"
    assert run().splitlines()[-1] == "[]"
    assert len(parents_of("two")) == 1


def test_other_settings_of_a_complete_study_are_refused(launch: Launcher) -> None:
    launch(trials=2)
    with pytest.raises(UserError, match="max_steps was 40 and now is 50"):
        launch(trials=2, steps=50)


def leave_a_file(study: str) -> None:
    folder = MLRUNS / "outbox" / study / "00000-an-earlier-launch"
    folder.mkdir()
    (folder / "config.toml").write_text("[config]\n")


def remove_the_report(study: str) -> None:
    report_path(study).unlink()


def reopen_the_parent(study: str) -> None:
    connect(None).update_run(parents_of(study)[0].info.run_id, status="RUNNING")


def remove_the_database(study: str) -> None:
    for file in MLRUNS.glob("mlflow.db*"):
        file.unlink()
    shutil.copy("empty.db", MLRUNS / "mlflow.db")


@pytest.mark.parametrize(
    "change", [leave_a_file, remove_the_report, reopen_the_parent, remove_the_database]
)
def test_unsent_or_unwritten_rest_is_done_as_usual(
    launch: Launcher, mlflow_template: Path, change: Callable[[str], None]
) -> None:
    shutil.copy(mlflow_template, "empty.db")
    launch(trials=2, prune=False)
    change("small")

    assert launch(trials=2, prune=False) == 0

    assert_whole("small", 2)
    assert report_path("small").exists()
    assert not list((MLRUNS / "outbox" / "small").iterdir())
    assert {run.info.status for run in parents_of("small")} <= {"FINISHED", "KILLED"}


def test_other_store_gets_the_runs(launch: Launcher) -> None:
    launch(trials=2, prune=False)
    uri = "sqlite:///other.db"

    assert launch(trials=2, prune=False, tracking_uri=uri) == 0
    assert_whole("small", 2, uri=uri)
    # The other store has everything now, and no further run comes.
    n_runs = len(runs_of("small", uri))
    assert launch(trials=2, prune=False, tracking_uri=uri) == 0
    assert len(runs_of("small", uri)) == n_runs


def test_trial_of_a_dead_launch_is_trained(launch: Launcher) -> None:
    launch(trials=2)
    study = load_study("small", None)
    trial = study.ask()
    trial.set_user_attr("launch", "of a killed process")

    assert launch(trials=3) == 0
    assert [t.state.is_finished() for t in trials_of("small")] == [True] * 3


@pytest.mark.parametrize("more", [{"repeats": 2}, {"keep_models": 1}, {"trials": 4}])
def test_further_work_is_done(launch: Launcher, more: dict[str, Any]) -> None:
    launch(trials=3, prune=False)
    assert launch(**{"trials": 3, "prune": False, **more}) == 0
    assert len(parents_of("small")) == 2


def test_unfinished_best_trial_is_finished(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class PrunesAll(optuna.pruners.BasePruner):
        def prune(self, study: optuna.Study, trial: optuna.trial.FrozenTrial) -> bool:
            return True

    monkeypatch.setattr("studies.harness.search.launch.default_pruner", lambda base: PrunesAll())
    launch(trials=2)
    assert launch(trials=2, finish_best=True) == 0
    assert trials_of("small")[-1].state == TrialState.COMPLETE
    assert len(trials_of("small")) == 3
