"""Recovery: MLflow is written again from Optuna's storage."""

from __future__ import annotations

import shutil
from pathlib import Path

from studies.harness.store.paths import MLRUNS
from tests.studies.conftest import Launcher, assert_whole


def test_deleted_database_is_written_again(launch: Launcher, mlflow_template: Path) -> None:
    launch(trials=3)
    for file in MLRUNS.glob("mlflow.db*"):
        file.unlink()
    shutil.copy(mlflow_template, MLRUNS / "mlflow.db")

    launch(trials=3)

    assert_whole("small", 3)
