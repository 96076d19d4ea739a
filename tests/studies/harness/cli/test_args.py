"""The flags that a study keeps, the name of the running script, and the first line of output."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import fields

import pytest

from makemore.cli import parse_args
from makemore.errors import UserError
from studies.harness.cli.args import (
    NOT_PROPOSED,
    StudyArgs,
    announcement,
    check_args,
    given_ranges,
    launched_with,
    running_script,
    script_name,
)
from studies.harness.store.study import load_study
from tests.conftest import ROOT


def test_study_keeps_the_flags_that_a_proposed_command_needs(launch: Callable[..., int]) -> None:
    assert launch(trials=1, steps=20, seed=5, prune=False, keep_models=3, patience=9.0) == 0

    kept = load_study("small", None).user_attrs["flags"]
    expected = StudyArgs(steps=20, seed=5, prune=False, keep_models=3, repeats=0)
    assert parse_args(StudyArgs, kept) == expected


def test_ranges_are_named_by_parameter() -> None:
    assert given_ranges(StudyArgs(range=("lr=0.1:1", "batch_size=32,64"))) == {
        "lr": "0.1:1",
        "batch_size": "32,64",
    }


@pytest.mark.parametrize(
    ("ranges", "sentence"),
    [
        (("lr",), "--range must be NAME=LOW:HIGH, or NAME=A,B,C for choices, but got 'lr'."),
        (("=1:2",), "--range must be NAME=LOW:HIGH, or NAME=A,B,C for choices, but got '=1:2'."),
        (("lr=",), "--range must be NAME=LOW:HIGH, or NAME=A,B,C for choices, but got 'lr='."),
        (("lr=1:2", "lr=1:3"), "--range names lr twice; give one range for each parameter."),
    ],
)
def test_range_without_a_name_or_value_is_refused(ranges: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        check_args(StudyArgs(range=ranges))
    assert str(caught.value) == sentence


def test_each_name_that_is_not_proposed_is_a_flag() -> None:
    assert NOT_PROPOSED <= {field.name for field in fields(StudyArgs)}


def test_script_is_named_relative_to_the_project(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "studies" / "mlp.py")])
    assert (running_script(), script_name()) == ("studies/mlp.py", "mlp")


@pytest.mark.parametrize(
    "program",
    ["", "-c", "-m", "/usr/bin/ipython", "/usr/lib/ipykernel_launcher.py", "pytest/__main__.py"],
)
def test_notebook_and_command_line_program_are_no_script(
    monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    monkeypatch.setattr(sys, "argv", [program])
    assert (running_script(), script_name()) == (None, "study")
    assert launched_with(StudyArgs())["script"] is None


@pytest.mark.parametrize(
    ("flags", "line"),
    [
        ({}, "Study mlp: 32 trials of 5,000 steps."),
        ({"trials": 1}, "Study mlp: 1 trial of 5,000 steps."),
        ({"minutes": 2.5}, "Study mlp: 2.5 minutes, at most 32 trials of 5,000 steps."),
    ],
)
def test_first_line_of_output_states_the_budget(flags: dict[str, float], line: str) -> None:
    assert announcement(StudyArgs(study="mlp", **flags)) == line  # type: ignore[arg-type]


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_share_of_audits_is_from_0_to_1(share: float) -> None:
    with pytest.raises(UserError, match=r"--audit-pruning must be from 0 to 1, but got"):
        check_args(StudyArgs(study="mlp", audit_pruning=share))
