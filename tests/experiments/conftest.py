"""A finished study in real stores, made once and copied for each test."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.search.launch import run_study
from studies.harness.tracking.connection.connect import default_tracking_uri
from studies.mlp import LECTURE
from studies.mlp import space as five_parameters

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")
SMALL = Config(max_steps=40, eval_interval=10, n_hidden=16, init="kaiming")


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, words: list[str]) -> Path:
    """A folder with words.txt and the study `small`: three trials of 40 steps."""
    folder = tmp_path_factory.mktemp("template")
    with contextlib.chdir(folder):
        names = Path("words.txt")
        pairs = "\n".join(a[:i] + b for a in words for b in words for i in (2, 3))
        names.write_text(pairs[:4000] + "\n")
        flags: dict[str, Any] = {
            "trials": 3,
            "steps": 40,
            "workers": 2,
            "device": "cpu",
            "prune": False,
            "repeats": 0,
        }
        args = StudyArgs(names=names, study="small", **flags)
        assert run_study(args, five_parameters, BASE, first=LECTURE) == 0
    return folder


@pytest.fixture
def workdir(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a copy of the template."""
    shutil.copytree(template, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def retrain(workdir: Path, run_file: Any) -> Callable[..., Any]:
    """Run retrain.py on the words of the study."""
    return lambda file, *flags: run_file(
        "experiments/retrain.py", file, "--names", "words.txt", "--device", "cpu", *flags
    )


@pytest.fixture
def exported(workdir: Path, run_file: Any) -> Path:
    """The exported config of the study's best trial."""
    assert run_file("experiments/export.py", "small").code == 0
    return Path("experiments/configs/small.toml")


@pytest.fixture
def config(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A config file, in a folder whose store mlflow's own functions use too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri())
    path = Path("small.toml")
    path.write_text(SMALL.to_toml())
    return path
