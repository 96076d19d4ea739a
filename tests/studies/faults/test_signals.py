"""SIGINT and SIGTERM end a script cleanly at any moment, and the next launch continues a study."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from optuna.trial import TrialState

from makemore.cli import INTERRUPTED
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs
from tests.conftest import ROOT, finish, start, wait_for
from tests.studies.conftest import assert_whole, runs_by_trial, start_study, states_of

FIRST_IMPORT = "import makemore.interrupt"  # right after that of __future__


def mlflow_has_a_running_trial(study: str) -> bool:
    client = connect(None)
    experiment = client.get_experiment_by_name(study)
    if experiment is None:
        return False
    query = "tags.trial != '' and tags.state = 'RUNNING'"
    return bool(find_runs(client, experiment.experiment_id, query, most=1))


@pytest.mark.parametrize(
    "number", [signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.slow)]
)
def test_signal_requeues_trials_and_study_resumes(
    names: Path, number: signal.Signals, storage: str | None
) -> None:
    flags = ("--trials", 3, "--steps", 80_000, "--no-prune")
    process = start_study(names, *flags, storage=storage)
    wait_for(lambda: TrialState.RUNNING in states_of("mlp", storage))
    wait_for(lambda: mlflow_has_a_running_trial("mlp"))
    process.send_signal(number)
    ran = finish(process, timeout=30)

    assert ran.code == 130
    assert "Traceback" not in ran.err
    assert "same command" in ran.out
    # The running trials wait for the next launch.
    assert TrialState.RUNNING not in states_of("mlp", storage)
    runs = runs_by_trial("mlp").values()
    interrupted = [run for run in runs if run.data.tags["state"] == "INTERRUPTED"]
    # A run that MLflow did not end within two seconds is left to the next launch.
    assert interrupted or any(run.data.tags["state"] == "RUNNING" for run in runs)
    ends = {(run.info.status, run.data.tags["reason"]) for run in interrupted}
    assert ends <= {("KILLED", "interrupted")}

    ran = finish(start_study(names, *flags, storage=storage))

    assert ran.code == 0, ran.err
    assert_whole("mlp", 3, storage)


def test_second_signal_exits_at_once(names: Path) -> None:
    process = start_study(names, "--trials", 3, "--steps", 500_000)
    wait_for(lambda: TrialState.RUNNING in states_of("mlp"))
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.02)
    process.send_signal(signal.SIGINT)

    assert finish(process, timeout=20).code == 130


# --- before a study starts


@pytest.mark.slow
def test_ctrl_c_during_imports_is_one_word(names: Path) -> None:
    for delay in (0.0, 0.1, 0.2, 0.4, 0.7, 1.0):
        process = start_study(names, "--trials", 2, "--steps", 500_000)
        assert process.stderr
        assert process.stderr.readline().startswith("Study mlp: ")  # torch is imported now
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
        ran = finish(process)

        assert ran.code == INTERRUPTED, ran.err
        assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    "program",
    [
        "import makemore.interrupt; raise KeyboardInterrupt",
        "import makemore.interrupt; raise RuntimeError from KeyboardInterrupt()",
        "import os, signal, makemore.interrupt; os.kill(os.getpid(), signal.SIGINT)",
    ],
)
def test_ctrl_c_outside_of_any_handler_is_one_word(program: str) -> None:
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert (ran.returncode, ran.stderr) == (INTERRUPTED, "Interrupted.\n")


@pytest.mark.parametrize("module", ["makemore.cli", "studies.mlp"])
def test_program_that_imports_a_script_keeps_its_own_ctrl_c(module: str) -> None:
    program = f"import {module}; raise KeyboardInterrupt"
    ran = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)

    assert ran.returncode == -signal.SIGINT
    assert ran.stderr.endswith("KeyboardInterrupt\n")


def scripts() -> list[Path]:
    """Return the scripts whose first import catches Ctrl-C during the other ones."""
    files = [*(ROOT / "studies").glob("*.py"), *(ROOT / "experiments").glob("*.py")]
    return sorted(
        path.relative_to(ROOT)
        for path in [*files, ROOT / "makemore" / "trainer.py"]
        if f"import annotations\n\n{FIRST_IMPORT}" in path.read_text(encoding="utf-8")
    )


@pytest.mark.slow
@pytest.mark.parametrize("script", scripts(), ids=str)
def test_ctrl_c_in_the_first_second_is_one_word(
    workdir: Path, script: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPROFILEIMPORTTIME", "1")  # one line on stderr for each import
    for more_imports in (0, 3, 10, 30, 60):
        process = start(str(script), "--absent")
        assert process.stderr
        for line in process.stderr:
            if line.endswith(" makemore.interrupt\n"):
                break
        for _ in range(more_imports):
            process.stderr.readline()
        process.send_signal(signal.SIGINT)
        ran = finish(process)

        assert ran.code == INTERRUPTED, (more_imports, ran.err)
        assert ran.err.endswith("Interrupted.\n")
        assert "Traceback" not in ran.err
