"""The five-parameter search, and its range of lr from a range test."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from makemore.cli import parse_args
from makemore.data import load_corpus
from makemore.lr_sweep import lr_range_test
from studies.harness.store.study import load_study
from studies.mlp import BASE, LECTURE, Args

MLP = "studies/mlp.py"
Mlp = Callable[..., Any]


@pytest.fixture
def mlp(names: Path, run_file: Any) -> Mlp:
    """Run the script on few words and few steps, so that a trial takes milliseconds."""
    small = ("--steps", 20, "--repeats", 0, "--workers", 2, "--device", "cpu", "--json")
    return lambda *flags: run_file(MLP, "--names", names, *small, *flags)


def test_range_of_lr_is_the_decade_around_the_suggestion(mlp: Mlp, names: Path) -> None:
    suggestion = lr_range_test(BASE.replace(**LECTURE), load_corpus(names)).suggest()

    ran = mlp("--lr-from-sweep", "--trials", 2)

    study = load_study("mlp", None)
    found: Any = study.trials[0].distributions["lr"]
    assert ran.code == 0
    # Three significant digits: within half a percent.
    assert (found.low, found.high) == pytest.approx(
        (suggestion / math.sqrt(10), suggestion * math.sqrt(10)), rel=5e-3
    )
    assert f"A range test narrows lr to {found.low:g} to {found.high:g}, by the rule" in ran.err
    # The other ranges are those of the plain search.
    mlp("--study", "plain", "--trials", 1)
    plain = load_study("plain", None).user_attrs["space"]
    narrowed = study.user_attrs["space"]
    assert {name for name in plain if plain[name] != narrowed[name]} == {"lr"} and set(
        plain
    ) == set(narrowed)
    # The lecture's rate is inside, so its configuration comes first.
    assert found.low < 0.1 < found.high and study.trials[0].params == LECTURE


def test_same_command_resumes_and_another_range_is_refused(mlp: Mlp) -> None:
    assert mlp("--lr-from-sweep", "--trials", 1, "--seed", 7).code == 0
    assert mlp("--lr-from-sweep", "--trials", 2, "--seed", 7).json["trials"] == 2
    # The words alone decide the range, so the seed of the study can be left out.
    assert mlp("--lr-from-sweep", "--trials", 3).json["trials"] == 3
    without = mlp("--trials", 4)
    assert (without.code, without.out) == (2, "")
    refusal = without.err.splitlines()[-1]
    assert "study 'mlp'" in refusal and "lr was 0.0" in refusal
    mlp("--trials", 1, "--study", "plain")
    refused = mlp("--trials", 2, "--study", "plain", "--lr-from-sweep")
    assert (refused.code, refused.out) == (2, "")
    refusal = refused.err.splitlines()[-1]
    assert "study 'plain'" in refusal and "lr was 0.001 to 1.0 (log) and now is" in refusal
    assert len(load_study("plain", None).get_trials()) == 1


def test_study_keeps_the_flag_for_proposed_commands(mlp: Mlp) -> None:
    mlp("--lr-from-sweep", "--trials", 1)
    kept = load_study("mlp", None).user_attrs["flags"]
    assert parse_args(Args, kept) == Args(steps=20, repeats=0, lr_from_sweep=True)


@pytest.mark.parametrize(
    ("lo", "hi", "first"), [(0.2, 2.0, None), (0.1, 1.0, 0.1), (0.001, 0.01, None)]
)
def test_lecture_is_tried_first_only_inside_the_range(
    mlp: Mlp, monkeypatch: pytest.MonkeyPatch, lo: float, hi: float, first: float | None
) -> None:
    monkeypatch.setattr(
        "studies.harness.search.learning_rate.range_test.decade_around_suggestion",
        lambda config, corpus: (lo, hi),
    )
    assert mlp("--lr-from-sweep", "--trials", 2).code == 0
    trials = load_study("mlp", None).get_trials()
    assert all(lo <= trial.params["lr"] <= hi for trial in trials)
    assert ("origin" in trials[0].user_attrs) == (first is not None)
    assert first is None or trials[0].params["lr"] == first
