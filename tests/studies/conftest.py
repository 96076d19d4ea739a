"""Real stores for the studies: a folder of its own for each test, and MLflow's database copied from a migrated one."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makemore.config import Config
from studies.harness.launch import StudyArgs, run_study
from studies.harness.mlflow_store import connect
from studies.harness.spaces import LECTURE, five_parameters

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")


@pytest.fixture(scope="session")
def mlflow_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A migrated, empty MLflow database: making one takes seconds, copying it milliseconds."""
    path = tmp_path_factory.mktemp("template") / "mlflow.db"
    connect(f"sqlite:///{path}")
    return path


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mlflow_template: Path) -> Path:
    """An empty current directory whose mlruns/ holds a fresh MLflow database."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mlruns").mkdir()
    shutil.copy(mlflow_template, tmp_path / "mlruns" / "mlflow.db")
    return tmp_path


@pytest.fixture
def names(workdir: Path, words: list[str]) -> Path:
    """A file of a few hundred words, so that a trial takes milliseconds."""
    path = workdir / "names.txt"
    path.write_text("\n".join(a[:i] + b for a in words for b in words for i in (2, 3))[:4000] + "\n")
    return path


@pytest.fixture
def launch(names: Path) -> Callable[..., int]:
    """Launch a small study in this process; returns the exit code."""

    def launch(space: Any = five_parameters, base: Config = BASE, first: Any = LECTURE, **flags: Any) -> int:
        defaults = {"names": names, "study": "small", "trials": 4, "steps": 40, "workers": 2, "device": "cpu"}
        return run_study(StudyArgs(**{**defaults, **flags}), space, base, first=first)

    return launch
