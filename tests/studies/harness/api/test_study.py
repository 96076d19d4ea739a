"""The class Study: its winner, tables, pictures, report and export."""

from __future__ import annotations

import io
from collections.abc import Callable
from html import unescape
from pathlib import Path

import pytest
from PIL import Image

from makemore.config import read_config
from makemore.errors import UserError
from studies import Study
from studies.harness.api.process import PythonArgs
from studies.harness.store.study import load_study
from studies.harness.store.winner.winner import find_winner
from tests.studies.synthetic import make_study

PICTURES = ("curves", "history", "importances", "parallel", "slices")


@pytest.fixture
def study(launch: Callable[..., int]) -> Study:
    launch(trials=4, repeats=2, steps=40, prune=False)
    return Study.load("small")


def test_best_is_the_confirmed_winner(study: Study) -> None:
    stored = load_study("small", None)
    winner = find_winner(stored.get_trials())
    assert winner is not None and winner.group is not None
    best = study.best

    assert (best.trial, best.loss) == (winner.number, winner.own)
    assert (best.mean, best.ci, best.n) == (winner.group.mean, winner.group.margin, 2)
    repeats = [t.number for t in stored.trials if t.user_attrs.get("repeat_of") == winner.number]
    assert best.trials == (winner.number, *repeats) and len(repeats) == 2
    assert best.config.lr == best.params["lr"]
    assert f"trial {winner.number}, dev loss {winner.loss_text}" in repr(best)


def test_unconfirmed_winner_has_no_mean(launch: Callable[..., int]) -> None:
    launch(trials=2)
    best = Study.load("small").best
    assert (best.mean, best.ci, best.n, len(best.trials)) == (None, None, 0, 1)
    assert "It is not confirmed" in repr(best)


def test_tables_have_one_row_a_trial_and_an_evaluation(study: Study) -> None:
    trials, everything, curves = study.trials, study.all_trials, study.curves

    assert sorted(trials.trial) == [0, 1, 2, 3]
    assert trials.trial[0] == study.best.trial
    assert len(everything) == len(load_study("small", None).trials) > 4
    assert set(curves.trial) == {0, 1, 2, 3}
    # Ten evaluations a trial; the lowest dev loss of a curve is the trial's.
    assert (curves.groupby("trial").size() == 10).all()
    lowest = curves.groupby("trial").dev_loss.min()
    assert (trials.set_index("trial").dev_loss.sort_index() == lowest).all()


@pytest.mark.parametrize("name", PICTURES)
def test_pictures_are_displayed_and_saved(name: str, study: Study, tmp_path: Path) -> None:
    picture = getattr(study.plot, name)()

    png = picture._repr_png_()
    assert Image.open(io.BytesIO(png)).size[0] == 1200
    path = picture.save(tmp_path / "pictures" / f"{name}.png")
    assert path.read_bytes() == png


def test_picture_is_not_saved_over_a_folder(study: Study, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="is a directory; give path the path of a file"):
        study.plot.history().save(tmp_path)


def test_report_is_written_and_shown_inline(study: Study) -> None:
    Path("mlruns/reports/small.html").unlink()
    page = study.report()

    assert page.path == Path("mlruns/reports/small.html") and page.missing == ""
    html = page._repr_html_()
    frame = unescape(html.split('srcdoc="')[1].split('" style')[0])
    assert frame == page.path.read_text()
    assert f"{study.best.mean:.4f}" in frame


def test_exported_config_is_the_winners(study: Study, tmp_path: Path) -> None:
    path = study.export(tmp_path / "best.toml")
    assert read_config(path) == study.best.config
    other = next(n for n in (0, 1) if n != study.best.trial)

    with pytest.raises(UserError, match="give force=True to overwrite it, or give path another"):
        study.export(path, trial=other)
    study.export(path, trial=other, force=True)
    assert read_config(path) != study.best.config


def test_text_and_table_name_the_winner(study: Study) -> None:
    best = study.best
    assert f"Winner: trial {best.trial}," in repr(study)
    assert repr(study).startswith("Study small: 4 trials, 4 complete, 0 pruned, 0 failed.")
    html = study._repr_html_()
    assert f"Winner: trial {best.trial}," in html
    assert html.count("<tr>") == 5 and f"<tr><td>{best.trial}</td>" in html


def test_study_without_a_trial_says_so() -> None:
    empty = Study(make_study([]), PythonArgs(study="made-up"))

    assert repr(empty).endswith("0 failed.\nNo trial has a dev loss yet.")
    assert "No trial has a dev loss yet." in empty._repr_html_()
    assert len(empty.trials) == len(empty.curves) == 0
    with pytest.raises(UserError, match="has no finished trial yet"):
        _ = empty.best
    assert empty.plot.history()._repr_png_()
