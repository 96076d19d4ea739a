"""Comparison of the trials of a study, and of several studies."""

from __future__ import annotations

import io
from collections.abc import Callable

import optuna
import pandas as pd
import pytest
from rich.console import Console

from makemore.config import Config
from studies.harness.report.compare import (
    compare_studies,
    count_states,
    print_studies,
    print_summary,
    print_trials,
    searched_trials,
    to_markdown,
)
from studies.harness.report.results import trials_frame
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.store.winner.winner import find_winner
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of


@pytest.fixture
def frame(launch: Callable[..., int]) -> pd.DataFrame:
    launch(study="long", trials=3, steps=80, prune=False)
    launch(study="short", trials=2, steps=40, prune=False, base=Config(init="lecture"))
    return compare_studies([load_study(name, None) for name in ("long", "short")])


def test_studies_show_best_loss_and_training(frame: pd.DataFrame) -> None:
    best = dev_loss(ranked(load_study("long", None).get_trials())[0])
    assert frame.loc["lowest dev_loss of one seed", "long"] == f"{best:.4f}"
    assert list(frame.loc["trials"]) == ["3", "2"]
    assert list(frame.loc["training steps"]) == ["240", "80"]


def test_best_so_far_is_compared_at_equal_steps(frame: pd.DataFrame) -> None:
    # After all its steps the short study is at its best; the long one may still improve.
    at, best = frame.loc[["best after 80 steps", "lowest dev_loss of one seed"]].to_numpy()
    assert at[1] == best[1]
    assert float(at[0]) >= float(best[0])


def test_stored_ensemble_is_compared() -> None:
    studies = [make_study([make_trial(PARAMS, falling(2.3))]) for _ in range(2)]
    studies[1].set_user_attr("ensemble", {"n_members": 3, "dev_loss": 2.1, "mixed": 2.0})

    assert list(compare_studies(studies).loc["ensemble dev_loss"]) == ["-", "2.1000"]


def test_only_different_settings_are_listed(frame: pd.DataFrame) -> None:
    assert list(frame.loc["base init"]) == ["kaiming", "lecture"]
    assert "base optimizer" not in frame.index and "range of lr" not in frame.index


def test_markdown_has_a_row_for_each_measure() -> None:
    table = pd.DataFrame({"a": ["1"], "b": ["2"]}, index=["trials"])
    assert (
        to_markdown(table, "measure")
        == "| measure | a | b |\n| --- | --- | --- |\n| trials | 1 | 2 |"
    )


def made_up() -> optuna.Study:
    """Two trials, one of them replaced, and repeats of both."""
    return make_study(
        [
            make_trial(PARAMS, falling(2.3)),
            make_trial(PARAMS, [], state="FAIL", replaced="trained again after an engine failed"),
            make_trial(PARAMS, falling(2.2)),
            *repeats_of(0, 2.1, 2.3),
            *repeats_of(2, 2.25),
        ]
    )


def test_searched_trials_leave_out_repeats_and_replaced() -> None:
    study = made_up()

    rows = searched_trials(study, trials_frame(study))

    # Trial 0 is the winner: it alone has two repeats.
    assert list(rows.trial) == [0, 2]
    assert count_states(rows) == {"complete": 2}


def printed(show: Callable[[Console], None]) -> list[str]:
    screen = io.StringIO()
    show(Console(file=screen, width=200))
    return screen.getvalue().splitlines()


def test_trials_are_printed_as_markdown() -> None:
    study = made_up()
    rows = searched_trials(study, trials_frame(study))

    lines = printed(lambda console: print_trials(console, study, rows, 1, markdown=True))

    assert lines[0] == "1 of 2 trials of study made-up, the winner first, then by dev loss:"
    assert lines[1].startswith("| trial | state |") and "started" not in lines[1]
    assert lines[3].startswith("| 0 | COMPLETE | finished | 2.3 |")
    assert len(lines) == 4


def test_summary_names_the_winner() -> None:
    winner = find_winner(made_up().get_trials())

    study = made_up()
    lines = printed(lambda console: print_summary(console, study, {"complete": 4}, winner))

    assert lines[0] == "4 complete"
    assert lines[1].startswith("Winner: trial 0, dev loss 2.2000 ± ")
    assert printed(lambda console: print_summary(console, make_study(), {}, None)) == [
        "Study made-up has no trials yet."
    ]


def test_trials_of_a_dead_launch_are_mentioned() -> None:
    study = make_study()
    study.ask().set_user_attr("launch", "killed")

    lines = printed(lambda console: print_summary(console, study, {"running": 1}, None))

    assert lines[1] == (
        "The launch of 1 running trial has ended; the study's next launch trains them again."
    )


def test_studies_are_printed_as_table_or_markdown() -> None:
    table = pd.DataFrame({"a": ["1"], "b": ["2"]}, index=["trials"])

    plain = printed(lambda console: print_studies(console, table))
    markdown = printed(lambda console: print_studies(console, table, markdown=True))

    assert any(line.split() == ["trials", "1", "2"] for line in plain)
    assert markdown == to_markdown(table, "measure").splitlines()
