"""Checks before a study: refused input creates nothing, so the corrected input is accepted."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import optuna
import pytest

from makemore.config import Config
from makemore.errors import UserError
from tests.studies.conftest import BASE, Launcher, assert_whole


def dropout(trial: optuna.Trial, base: Config, high: float = 0.5) -> Config:
    return base.replace(dropout=trial.suggest_float("dropout", 0.0, high))


def sizes(trial: optuna.Trial, base: Config) -> Config:
    return base.replace(
        n_embd=trial.suggest_int("n_embd", 2, 65_535),
        n_hidden=trial.suggest_int("n_hidden", 2, 65_535),
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"space": partial(dropout, high=1.5)}, "dropout must be less than 1.0, but got 1.5"),
        (
            {"first": {"dropout": 2.0}},
            "the first trial is not valid: dropout must be less than 1.0",
        ),
        ({"space": sizes, "base": BASE.replace(block_size=32)}, "does not fit into memory"),
        ({"device": "cuda:99", "workers": 1}, "device 'cuda:99' is absent"),
        ({"tracking_uri": "http://127.0.0.1:9"}, "does not answer"),
    ],
)
def test_refused_study_leaves_its_name_free(
    launch: Launcher, flags: dict[str, Any], sentence: str
) -> None:
    correct: dict[str, Any] = {"space": dropout, "first": None, "trials": 1, "steps": 10}

    with pytest.raises(UserError, match=sentence):
        launch(**(correct | flags))

    assert not Path("mlruns/optuna").exists()
    assert launch(**correct) == 0
    assert_whole("small", 1)


@pytest.mark.parametrize("folder", ["outbox", "outbox/small", "optuna", "reports", "locks"])
def test_file_in_place_of_a_folder_is_refused(launch: Launcher, folder: str) -> None:
    path = Path("mlruns", folder)
    path.parent.mkdir(exist_ok=True)
    path.write_text("mine")

    with pytest.raises(UserError, match=f"{path}: is a file, but must be a folder; move the file"):
        launch(trials=1)

    assert path.read_text() == "mine"
    assert not list(Path("mlruns").rglob("*.journal"))
