"""The end of a study in the terminal: its sentences, and the table of trials."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
from optuna.trial import TrialState

from studies.harness.cli.args import StudyArgs
from studies.harness.cli.terminal import print_end

Printed = Callable[..., list[str]]

OUTCOME = {
    "trials": 3,
    "complete": 3,
    "pruned": 0,
    "diverged": 0,
    "failed": 0,
    "ended_now": 3,
    "timed_out": False,
    "wall_s": 35.9,
    "train_s": 47.2,
    "slots": 2,
    "report": "mlruns/reports/mlp.html",
}


def make_study(*marks: dict[str, int]) -> optuna.Study:
    """Return a study with a complete trial for each set of attributes; the last one is the best."""
    study = optuna.create_study()
    for number, mark in enumerate(marks):
        loss = 3.0 - 0.1 * number
        attrs = {"summary": {"dev_loss": loss, "reason": "finished"}, **mark}
        study.add_trial(
            optuna.create_trial(state=TrialState.COMPLETE, value=loss, user_attrs=attrs)
        )
    return study


@pytest.fixture
def printed(capsys: pytest.CaptureFixture[str]) -> Printed:
    """Print the end of a study; returns the lines on standard output."""

    def printed(study: optuna.Study, trials: int = 3, **changes: object) -> list[str]:
        args = StudyArgs(study="mlp", trials=trials, minutes=10.0)
        print_end(args, study, {**OUTCOME, **changes})
        return capsys.readouterr().out.splitlines()

    return printed


def test_time_is_stated_by_clock_and_by_slot(printed: Printed) -> None:
    lines = printed(make_study({}, {}, {}))
    assert "3 complete, 0 pruned, 0 failed." in lines
    # 47.2 s of 2 x 35.9 s.
    expected = "35.9 s on the clock; 2 slots trained for 47.2 s in total (66% busy)."
    assert expected in lines


def test_report_is_printed_if_it_was_written(printed: Printed) -> None:
    study = make_study({}, {}, {})
    assert "Report: mlruns/reports/mlp.html" in printed(study)
    assert not any("Report" in line for line in printed(study, report=None))


def test_numbers_above_the_total_are_explained(printed: Printed) -> None:
    study = make_study({}, {}, {"repeat_of": 0}, {"repeat_of": 1}, {})
    assert "Trial 4 has a number above 2: 2 seed repeats came before it." in printed(study)
    assert not any("number above" in line for line in printed(make_study({}, {}, {})))


def test_follow_up_trials_are_labelled(printed: Printed) -> None:
    lines = printed(make_study({}, {}, {"finishes": 1}))
    assert any("complete (finishes 1)" in line for line in lines)


def test_open_seed_repeats_are_mentioned(printed: Printed) -> None:
    study = make_study({}, {}, {})
    assert not any("repeats are left" in line for line in printed(study))
    for _ in range(2):
        study.enqueue_trial({}, user_attrs={"repeat_of": 2})
    assert any(line.startswith("2 seed repeats are left") for line in printed(study))


def test_reached_total_is_one_sentence(printed: Printed) -> None:
    lines = printed(make_study({}, {}, {}), ended_now=0)
    assert "Study mlp already has 3 trials; give a larger --trials to continue it." in lines
    assert not any("on the clock" in line for line in lines)


@pytest.mark.parametrize(
    ("timed_out", "sentence"),
    [
        (False, "Stopped at 3 of 9 trials; run the same command again to continue."),
        (
            True,
            "The time limit of 10 minutes ended the search after 3 trials; run the same command "
            "again to continue.",
        ),
    ],
)
def test_unfinished_search_says_how_to_continue(
    printed: Printed, timed_out: bool, sentence: str
) -> None:
    assert sentence in printed(make_study({}, {}, {}), trials=9, timed_out=timed_out)


def test_printed_report_exists(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=2)
    (path,) = re.findall(r"^Report: (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert Path(path).read_text(encoding="utf-8").startswith("<!doctype html>")
