"""Script that writes a study's report."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from makemore.errors import UserError
from studies import report
from studies.harness.report.results import read_results
from studies.harness.store.study import load_study
from tests.conftest import ROOT


def test_help_loads_no_heavy_library() -> None:
    program = """
import runpy, sys
sys.argv = ["studies/report.py", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted({"torch", "mlflow", "optuna", "pandas", "matplotlib"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert lines[0].startswith("Usage: python studies/report.py")
    assert lines[-1] == "[]"


def test_page_has_the_best_model(
    launch: Callable[..., int], names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch()
    capsys.readouterr()

    assert report.main(report.Args("small", names=names, json=True)) == 0

    out, err = capsys.readouterr()
    printed = json.loads(out.splitlines()[-1])
    page = Path(printed["path"]).read_text(encoding="utf-8")
    assert printed["path"] == "mlruns/reports/small.html"
    assert printed["bytes"] == len(page.encode())
    best = read_results(load_study("small", None)).trials.iloc[0]
    # The loaded model has the trial's dev loss.
    assert page.count(f"<td>{best.dev_loss:.4f}</td>") >= 2
    assert '<ul class="words"><li>' in page
    assert f"--names {names}" in page
    stored = load_study("small", None).user_attrs["ensemble"]
    assert f"would have dev loss {stored['dev_loss']:.4f}, and {stored['mixed']:.4f} mixed" in page
    assert "no samples" not in err


def test_missing_words_are_reported(
    launch: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    launch(keep_models=0)
    capsys.readouterr()

    # Without --names the embedded words are loaded, which are not the study's.
    assert report.main(report.Args("small", out=Path("page.html"))) == 0

    out, err = capsys.readouterr()
    assert "give --names the path of names.txt." in err
    assert out == "Report of study small: page.html\n"
    assert '<ul class="words">' not in Path("page.html").read_text(encoding="utf-8")


def test_page_without_model_says_why(
    launch: Callable[..., int], names: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(keep_models=0)

    assert report.main(report.Args("small", names=names)) == 0

    assert "MLflow holds no model of trial" in capsys.readouterr().err


def test_other_words_and_unwritable_path_are_refused(
    launch: Callable[..., int], tmp_path: Path, words: list[str]
) -> None:
    launch()
    other = tmp_path / "other.txt"
    other.write_text("\n".join(words) + "\n")
    os.mkfifo("fifo")

    with pytest.raises(
        UserError, match="study 'small' was made on other words; give --names the path of names"
    ):
        report.main(report.Args("small", names=other))
    with pytest.raises(UserError, match="cannot be written .* give --out another path"):
        report.main(report.Args("small", out=other / "below" / "page.html"))
    for out in ("/dev/null", "fifo"):
        with pytest.raises(UserError, match=f"{out}: is not a regular file; give --out another"):
            report.main(report.Args("small", out=Path(out)))
    assert Path("/dev/null").is_char_device()
