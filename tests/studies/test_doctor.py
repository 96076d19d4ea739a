"""The doctor script: it finds runs that differ from their trials, and repairs them."""

from __future__ import annotations

from typing import Any

from studies.harness.tracking.connection.connect import connect
from tests.studies.conftest import Launcher, artifacts_of, runs_by_trial

DOCTOR = "studies/doctor.py"


def test_repaired_run_keeps_its_files(launch: Launcher, run_file: Any) -> None:
    launch(trials=2, prune=False)
    run = runs_by_trial("small")[1]
    connect(None).log_metric(run.info.run_id, "dev_loss", 9.0, step=10_000)
    assert run_file(DOCTOR, "small").code == 1

    repaired = run_file(DOCTOR, "small", "--repair")

    assert repaired.code == 0, repaired.out
    again = runs_by_trial("small")[1]
    assert again.info.run_id != run.info.run_id
    assert artifacts_of(again) == {"config.toml", "model.safetensors", "samples.txt"}
