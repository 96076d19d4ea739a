"""What a study leaves beside its trials."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from studies.harness.report import trials_frame, write_study_files
from studies.harness.results import read_results
from tests.studies.made_up import falling, make_study, make_trial, random_trials

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def test_the_table_ranks_trials_and_holds_every_parameter_and_number(tmp_path: Path) -> None:
    trials = [
        make_trial(PARAMS, falling(2.3)),
        make_trial({**PARAMS, "lr": 0.9}, [], state="PRUNED", reason="diverged at step 9"),
        make_trial({**PARAMS, "lr": 0.2}, falling(2.2)),
    ]

    write_study_files(make_study(trials), tmp_path)

    table = pd.read_csv(tmp_path / "trials.csv")
    assert list(table.trial) == [2, 0, 1]  # those without a loss come last
    assert list(table.dev_loss[:2]) == pytest.approx([2.2, 2.3])
    assert list(table.columns[:9]) == ["trial", "state", "reason", "dev_loss", "train_loss", *PARAMS]
    assert {"best_step", "gap", "seconds", "n_params", "seed", "repeat_of"} <= set(table.columns)
    assert list(table.gap[:2]) == pytest.approx([0.1, 0.1]) and table.reason[2] == "diverged at step 9"


def test_an_empty_study_has_a_table_with_its_columns() -> None:
    frame = trials_frame(make_study())

    assert len(frame) == 0 and "dev_loss" in frame.columns


def test_repeats_stand_apart_and_replaced_trials_nowhere() -> None:
    trials = [
        make_trial(PARAMS, falling(2.3)),
        make_trial(PARAMS, [], state="FAIL", replaced="trained again after an engine failed"),
        make_trial(PARAMS, falling(2.1), repeat_of=0),
    ]

    results = read_results(make_study(trials))

    assert list(results.trials.trial) == [0]
    assert list(results.repeats.trial) == [2] and list(results.repeats.repeat_of) == [0]
    # The repeat's evaluations are there, under its own number.
    assert set(results.points.trial) == {0, 2} and len(results.points) == 20


def test_the_search_space_keeps_its_order_and_drops_what_has_one_value() -> None:
    results = read_results(make_study(random_trials(3, lambda p: 2.0)))

    assert list(results.space) == ["lr", "block_size", "n_hidden", "batch_size"]


def test_reading_a_study_loads_neither_a_plotter_nor_scikit_learn() -> None:
    program = """
import sys
import studies.harness.report, studies.harness.results
print(sorted({"matplotlib", "pandas", "sklearn", "mlflow"} & set(sys.modules)))
"""
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"
