"""Tables of a study's trials and evaluations."""

from __future__ import annotations

import subprocess
import sys

import pandas as pd
import pytest

from studies.harness.report.results import Results, read_results, trials_frame
from studies.harness.store.winner import CONFIRMED
from tests.conftest import ROOT
from tests.studies.synthetic import (
    PARAMS,
    START,
    falling,
    make_study,
    make_trial,
    random_trials,
    repeats_of,
    results_of,
)


def test_table_ranks_trials_by_dev_loss() -> None:
    trials = [
        make_trial(PARAMS, falling(2.3)),
        make_trial({**PARAMS, "lr": 0.9}, [], state="PRUNED", reason="diverged at step 9"),
        make_trial({**PARAMS, "lr": 0.2}, falling(2.2)),
    ]

    table = trials_frame(make_study(trials))

    # Trials without a dev loss come last.
    assert list(table.trial) == [2, 0, 1]
    assert list(table.dev_loss[:2]) == pytest.approx([2.2, 2.3])
    assert list(table.minibatch_loss[:2]) == pytest.approx([2.1, 2.2])
    assert table.reason[2] == "diverged at step 9"


def test_table_has_the_means_of_seed_repeats() -> None:
    trials = [make_trial(PARAMS, falling(loss)) for loss in (2.2, 2.3)]

    table = trials_frame(make_study([*trials, *repeats_of(1, 2.10, 2.12)]))

    # The winner comes first, the repeats last.
    assert list(table.trial) == [1, 0, 2, 3]
    assert table.confirmed_dev_loss[0] == pytest.approx(2.11) and table.confirmed_n[0] == 2
    assert list(table.confirmed_ci.notna()) == [True, False, False, False]


def test_table_has_every_parameter_and_number() -> None:
    table = trials_frame(make_study([make_trial(PARAMS, falling(2.3), origin="the lecture's")]))

    head = ["trial", "state", "reason", "dev_loss", *CONFIRMED, "minibatch_loss", *PARAMS]
    assert list(table.columns[: len(head)]) == head
    rest = {"best_step", "seconds", "n_params", "seed", "repeat_of", "started", "ended"}
    assert rest <= set(table.columns)
    assert list(table.loc[0, list(PARAMS)]) == list(PARAMS.values())
    assert (table.best_step[0], table.seconds[0], table.n_params[0]) == (1000, 10.0, 1000)
    assert (table.started[0], table.ended[0]) == (START, START + 10)
    assert table.origin[0] == "the lecture's"
    assert pd.isna(table.repeat_of[0])


def test_empty_study_has_a_table_with_columns() -> None:
    frame = trials_frame(make_study())

    assert len(frame) == 0
    assert "dev_loss" in frame.columns


def test_repeats_are_separate_and_replaced_trials_absent() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.3)),
        make_trial(PARAMS, [], state="FAIL", replaced="trained again after an engine failed"),
        make_trial(PARAMS, falling(2.1), repeat_of=0),
    )

    assert list(results.trials.trial) == [0]
    assert list(results.repeats.trial) == [2]
    assert list(results.repeats.repeat_of) == [0]
    # The repeat's evaluations have its own number.
    assert set(results.points.trial) == {0, 2}
    assert len(results.points) == 20


def test_measured_and_complete_trials_are_selected() -> None:
    results = results_of(
        make_trial(PARAMS, falling(2.3)),
        make_trial(PARAMS, [2.9], state="PRUNED"),
        make_trial(PARAMS, [], state="FAIL"),
    )

    assert list(results.measured.trial) == [0, 1]
    assert list(results.complete.trial) == [0]


def test_space_keeps_order_and_drops_single_values() -> None:
    results = read_results(make_study(random_trials(3, lambda p: 2.0)))

    assert list(results.space) == ["lr", "block_size", "n_hidden", "batch_size"]


def test_reading_loads_no_plotter_and_no_scikit_learn() -> None:
    program = """
import sys
import studies.harness.report, studies.harness.report.results
print(sorted({"matplotlib", "pandas", "sklearn", "mlflow"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert done.stdout.strip() == "[]"


def test_large_study_says_how_many_trials_are_drawn(large: Results) -> None:
    drawn = large.drawn()

    assert len(drawn) == 2000 and len(large.trials) == 2300
    assert large.which_drawn() == "2,000 of 2,300 trials"
    assert large.drawn_note() == (
        "2,000 of 2,300 trials are drawn: the best 500, and a random sample of the others."
    )
    # The winner and the repeated trial are always drawn.
    assert large.winner is not None
    assert {large.winner.number, 1500} <= set(large.drawn(50).trial)


def test_small_study_is_drawn_without_a_note() -> None:
    results = results_of(*[make_trial(PARAMS, falling(2.3))] * 3)

    assert results.drawn() is results.trials
    assert results.which_drawn() == "each trial" and results.drawn_note() == ""
