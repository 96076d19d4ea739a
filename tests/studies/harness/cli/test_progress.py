"""Progress lines: their counts, and that the last line has the final ones."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from studies.harness.cli.progress import _Tally
from studies.harness.store.study import load_study
from tests.studies.harness.tracking.records import make_record
from tests.studies.synthetic import make_study


def progress_lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if " trials, " in line]


def test_last_line_has_the_final_counts(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(trials=4, repeats=2, prune=False) == 0

    last = progress_lines(capsys.readouterr().err)[-1]
    # Two repeats for each of the three best trials.
    assert last.startswith("4/4 trials, 0 pruned, 0 failed, 6 of 6 repeats, best dev ")


def test_only_the_repeats_of_this_launch_are_counted(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=3, repeats=2, prune=False)
    capsys.readouterr()
    launch(trials=3, repeats=5, prune=False)

    last = progress_lines(capsys.readouterr().err)[-1]
    repeats = [t for t in load_study("small", None).trials if "repeat_of" in t.user_attrs]
    n = len(repeats) - 6
    assert n > 0
    assert last.startswith("3/3 trials, ") and f", {n} of {n} repeats, " in last


def test_best_dev_loss_is_that_of_ended_trials() -> None:
    tally = _Tally(make_study(), total=3, max_steps=200, minutes=None)

    assert "no dev loss yet" in tally.text()
    tally.add(make_record((2.4,), number=0, state="RUNNING"))
    assert "dev 2.4000 in a running trial" in tally.text()
    tally.add(make_record((2.4, 2.5), number=0, state="PRUNED"))
    tally.add(make_record((2.1,), number=1, state="RUNNING"))
    assert ", best dev 2.4000, " in tally.text()
    tally.add(make_record((2.1, 2.0), number=1, state="COMPLETE"))
    assert ", best dev 2.0000, " in tally.text()


def test_launch_without_work_prints_no_progress(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=2)
    capsys.readouterr()
    launch(trials=2)
    assert progress_lines(capsys.readouterr().err) == []
