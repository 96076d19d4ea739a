"""Several studies side by side."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from makemore.config import Config
from studies.harness.report.compare import compare_studies, to_markdown
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked

COMPARE = "studies/compare.py"


@pytest.fixture
def frame(launch: Callable[..., int]) -> pd.DataFrame:
    launch(study="long", trials=3, steps=80, prune=False)
    launch(study="short", trials=2, steps=40, prune=False, base=Config(init="lecture"))
    return compare_studies([load_study(name, None) for name in ("long", "short")])


def test_each_study_has_its_best_and_its_training(frame: pd.DataFrame) -> None:
    best = dev_loss(ranked(load_study("long", None).get_trials())[0])
    assert frame.loc["best dev_loss", "long"] == f"{best:.4f}"
    assert list(frame.loc["trials"]) == ["3", "2"]
    assert list(frame.loc["training steps"]) == ["240", "80"]


def test_the_best_so_far_is_taken_at_equal_steps(frame: pd.DataFrame) -> None:
    # At all that the shorter trained, its best is its best; the longer one had not got to its end.
    at, best = frame.loc[["best after 80 steps", "best dev_loss"]].to_numpy()
    assert at[1] == best[1]
    assert float(at[0]) >= float(best[0])


def test_only_settings_that_differ_are_listed(frame: pd.DataFrame) -> None:
    assert list(frame.loc["base init"]) == ["kaiming", "lecture"]
    assert "base optimizer" not in frame.index and "range of lr" not in frame.index


def test_markdown_has_a_row_a_measure() -> None:
    table = pd.DataFrame({"a": ["1"], "b": ["2"]}, index=["trials"])
    assert (
        to_markdown(table, "measure")
        == "| measure | a | b |\n| --- | --- | --- |\n| trials | 1 | 2 |"
    )


def test_the_script_shows_and_writes_them(
    frame: pd.DataFrame, run_file: Any, workdir: Path
) -> None:
    for name in ("long", "short"):
        shown = run_file(COMPARE, name, "--top", 1, "--markdown")
        assert shown.code == 0 and "| trial | state |" in shown.out
    missing = run_file(COMPARE, "long", "absent")
    assert missing.code == 2 and "absent" in missing.err
