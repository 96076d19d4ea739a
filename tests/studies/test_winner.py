"""A study whose lowest trial is a lucky seed: every output names the confirmed winner."""

from __future__ import annotations

import json
from typing import Any

import optuna
import pandas as pd
import pytest

from makemore.config import Config, read_config
from studies.harness.report.results import trials_frame
from studies.harness.store.paths import report_path
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked, trial_config
from studies.harness.store.winner.winner import Winner, find_winner
from tests.studies.conftest import Launcher, runs_of

FLAGS = {"study": "lucky", "trials": 12, "repeats": 2, "prune": False, "json": True, "first": None}


def equal_configs(trial: optuna.Trial, base: Config) -> Config:
    """Suggest a field that changes next to nothing: the seed decides which trial is lowest."""
    return base.replace(lr=trial.suggest_float("lr", 0.1, 0.1001))


@pytest.fixture
def winner(launch: Launcher) -> Winner:
    """The winner of a study that it was trained for; it is not the lowest trial."""
    assert launch(space=equal_configs, seed=0, **FLAGS) == 0
    trials = load_study("lucky", None).get_trials()
    winner = find_winner(trials)
    assert winner is not None and winner.group is not None
    assert winner.number != ranked(trials)[0].number
    return winner


def test_every_output_names_the_winner(
    capsys: pytest.CaptureFixture[str], winner: Winner, run_file: Any
) -> None:
    # capsys comes first: the fixture `winner` prints what it checks.
    sentence = f"Winner: trial {winner.number}, dev loss {winner.loss_text} (95%, mean of 2"

    printed = capsys.readouterr()
    outcome = json.loads(printed.out)
    table = printed.err[printed.err.index("Best 5 of 12 trials") :].splitlines()
    assert outcome["best_trial"] == winner.number
    assert (outcome["best_mean"], outcome["best_n"]) == (winner.loss, 2)
    assert outcome["selected_dev_loss"] == winner.own > outcome["best_dev_loss"]
    assert table[3].split()[0] == str(winner.number)
    assert sentence in printed.err

    compared = run_file("studies/compare.py", "lucky", "--json")
    assert sentence in compared.err
    assert compared.json["best_trial"] == compared.json["trials"][0]["trial"] == winner.number

    exported = run_file("experiments/export.py", "lucky", "--json")
    assert exported.json["trial"] == winner.number
    assert exported.json["confirmed_dev_loss"] == winner.loss
    study = load_study("lucky", None)
    assert read_config("experiments/configs/lucky.toml") == trial_config(study, winner.trial)

    page = report_path("lucky").read_text(encoding="utf-8")
    assert f"Dev loss of the winner, trial {winner.number}" in page
    assert f'<div class="score">{winner.loss:.4f}<small>±' in page
    assert sentence in page and f"trial {winner.number}, the winner" in page
    # No proposed command names another trial.
    assert "experiments/export.py lucky" in page and "--trial " not in page


def test_mlflow_names_the_winner(winner: Winner) -> None:
    runs = runs_of("lucky")
    (parent,) = [run for run in runs if "trial" not in run.data.tags]
    tags = parent.data.tags
    assert tags["winner.trial"] == str(winner.number)
    assert tags["winner.confirmed_dev_loss"] == winner.loss_text
    assert tags["mlflow.note.content"].startswith(f"## lucky: dev loss {winner.loss_text}")

    assert winner.group is not None
    by_number = {run.data.tags["trial"]: run for run in runs if "trial" in run.data.tags}
    metrics = by_number[str(winner.number)].data.metrics
    assert metrics["dev_loss"] == winner.own
    assert metrics["confirmed_dev_loss"] == pytest.approx(winner.loss)
    assert metrics["confirmed_ci"] == pytest.approx(winner.group.margin)
    assert metrics["confirmed_n"] == 2
    marked = [number for number, run in by_number.items() if "winner" in run.data.tags]
    assert marked == [str(winner.number)]

    repeats = [run for run in by_number.values() if "repeat_of" in run.data.tags]
    assert len(repeats) == 6
    for run in repeats:
        repeated = by_number[run.data.tags["repeat_of"]]
        assert run.data.tags["mlflow.parentRunId"] == repeated.info.run_id
        assert run.data.tags["config_id"] == repeated.data.tags["config_id"]
        # A plain sort of the runs by dev_loss has no seed repeat.
        assert "dev_loss" not in run.data.metrics and "repeat_dev_loss" in run.data.metrics


def test_plain_queries_return_no_seed_repeat(winner: Winner) -> None:
    study = load_study("lucky", None)
    lowest = min(t.value for t in study.trials if t.value is not None)
    assert "repeat_of" not in study.best_trial.user_attrs
    assert study.user_attrs["winner"] == winner.number
    frame: pd.DataFrame = trials_frame(study)
    assert frame.trial[0] == winner.number
    assert list(frame.repeat_of.notna()) == [False] * 12 + [True] * 6
    # The study does have a seed repeat below every trial.
    assert lowest < (dev_loss(study.best_trial) or 0.0)
