"""Files of a study's report."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from makemore.data import Corpus
from studies.harness.report.build import (
    examine_study,
    make_report,
    render_report,
    trials_frame,
    write_study_files,
)
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, random_trials

PICTURES = ("history.png", "importances.png", "parallel.png", "slices.png")


def test_table_and_pictures_are_written(tmp_path: Path) -> None:
    study = make_study(random_trials(12, lambda p: 2 + p["lr"]))

    write_study_files(study, tmp_path)

    assert {path.name for path in tmp_path.iterdir()} == {"trials.csv", *PICTURES}
    for name in PICTURES:
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    table = pd.read_csv(tmp_path / "trials.csv")
    frame = trials_frame(study)
    assert list(table.columns) == list(frame.columns)
    # Losses are written to the last digit.
    assert list(table.dev_loss.dropna()) == list(frame.dev_loss.dropna())


def test_model_is_checked_only_with_words(small_corpus: Corpus) -> None:
    study = make_study([make_trial(PARAMS, falling(2.2))])

    findings, check = examine_study(study, small_corpus, None)
    assert findings.best is not None and findings.best.trial == 0
    assert check is not None and check.dev_loss is None
    assert examine_study(study, None, None)[1] is None


def test_context_overrides_what_the_study_knows(small_corpus: Corpus) -> None:
    study = make_study([make_trial(PARAMS, falling(2.2))])
    study.set_user_attr("script", "studies/stored.py")
    findings, check = examine_study(study, small_corpus, None)

    stored = render_report(study, findings, check)
    given = render_report(study, findings, check, {"script": "studies/given.py", "data": "my.txt"})

    assert "studies/stored.py" in stored and "names.txt" in stored
    assert "studies/given.py" in given and "studies/stored.py" not in given and "my.txt" in given


def test_report_is_the_rendered_examination(small_corpus: Corpus) -> None:
    study = make_study([make_trial(PARAMS, falling(2.2))])

    page = make_report(study, small_corpus, None)

    assert page == render_report(study, *examine_study(study, small_corpus, None))
    assert page.startswith("<!DOCTYPE html>") or page.startswith("<!doctype html>")
