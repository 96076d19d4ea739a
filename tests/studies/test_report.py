"""What a study leaves beside its trials."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from studies import report
from studies.harness.report.build import write_study_files
from studies.harness.report.results import read_results, trials_frame
from studies.harness.store.study import load_study
from tests.conftest import ROOT
from tests.studies.synthetic import falling, make_study, make_trial, random_trials

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
    assert list(table.columns[:9]) == [
        "trial",
        "state",
        "reason",
        "dev_loss",
        "train_loss",
        *PARAMS,
    ]
    assert {"best_step", "gap", "seconds", "n_params", "seed", "repeat_of"} <= set(table.columns)
    assert (
        list(table.gap[:2]) == pytest.approx([0.1, 0.1]) and table.reason[2] == "diverged at step 9"
    )


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
import studies.harness.report, studies.harness.report.results
print(sorted({"matplotlib", "pandas", "sklearn", "mlflow"} & set(sys.modules)))
"""
    root = ROOT
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, check=True
    )

    assert done.stdout.strip() == "[]"


def test_the_script_writes_the_page_with_the_best_trials_model(
    launch: Callable[..., int], names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch()
    capsys.readouterr()

    assert report.main(report.Args("small", names=names, json=True)) == 0

    out, err = capsys.readouterr()
    told = json.loads(out.splitlines()[-1])
    page = Path(told["path"]).read_text(encoding="utf-8")
    assert told["path"] == "mlruns/reports/small.html" and told["bytes"] == len(page.encode())
    best = read_results(load_study("small", None)).trials.iloc[0]
    # The model that was fetched has the trial's loss on the dev split.
    assert page.count(f"<td>{best.dev_loss:.4f}</td>") >= 2
    assert "None of these stands in train" in page and f"--names {names}" in page
    assert "no samples" not in err


def test_the_script_says_what_is_missing(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    launch(keep_models=0)
    capsys.readouterr()

    # The study's words are not the embedded ones.
    assert report.main(report.Args("small", out=Path("page.html"))) == 0

    out, err = capsys.readouterr()
    assert "give --names the path of that file" in err and "page.html" in out
    assert "The file of words was not at hand" in Path("page.html").read_text(encoding="utf-8")


def test_the_script_writes_a_page_without_a_model(
    launch: Callable[..., int], names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(keep_models=0)

    assert report.main(report.Args("small", names=names)) == 0

    assert "MLflow holds no model of trial" in capsys.readouterr().err


def test_the_script_refuses_other_words_and_a_place_that_cannot_be_written(
    launch: Callable[..., int], tmp_path: Path, words: list[str]
) -> None:
    launch()
    other = tmp_path / "other.txt"
    other.write_text("\n".join(words) + "\n")

    with pytest.raises(ValueError, match="is not the file of words that study 'small' was made on"):
        report.main(report.Args("small", names=other))
    with pytest.raises(ValueError, match="cannot be written .* give --out another path"):
        report.main(report.Args("small", out=other / "below" / "page.html"))
