"""The flags that a launch keeps, for commands that go on from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from pathlib import Path

from makemore.cli import parse_args
from studies.harness.cli.args import NOT_PROPOSED, StudyArgs
from studies.harness.cli.script import given_flags
from studies.harness.store.study import load_study


@dataclass(kw_only=True)
class Args(StudyArgs):
    narrow: bool = False
    width: int | None = 7
    rule: str = "basin"


def test_the_flags_give_the_same_arguments_again() -> None:
    args = Args(
        names=Path("my words.txt"),
        narrow=True,
        width=None,
        rule="tenth",
        prune=False,
        seed=0,
        steps=9,
        json=True,
    )
    flags = given_flags(args, exclude={"json"})
    assert parse_args(Args, [*flags, "--json"]) == args
    assert given_flags(Args(), exclude=()) == []
    # What does not differ is not said.
    assert "--repeats" not in flags and "--json" not in flags


def test_a_study_keeps_what_a_proposed_command_needs_and_leaves_out_stores_and_totals(
    launch: Callable[..., int],
) -> None:
    assert launch(trials=1, steps=20, seed=5, prune=False, keep_models=3, patience=9.0) == 0
    kept = load_study("small", None).user_attrs["flags"]
    args = parse_args(StudyArgs, kept)
    assert args == StudyArgs(steps=20, seed=5, prune=False, keep_models=3, repeats=0)
    # Each name that is left out is one of a flag.
    assert NOT_PROPOSED <= {field.name for field in fields(StudyArgs)}
