"""Find a learning rate: the lecture's range test, or with --trials a training at each rate.

The range test takes one step at each of 1,000 learning rates and suggests one from the losses. The
lecture's own sweep had a smaller model: --n-embd 2 --n-hidden 100. --audit compares the rules that
make a suggestion.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Group, Parameter

from makemore.cli import SWITCH
from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import run_script
from studies.harness.search.learning_rate.checks import check_sweep_args

if TYPE_CHECKING:
    from optuna import Study, Trial

LECTURE = Config()
RANGE = Group("Range test", sort_key=0)
MODEL = Group("Model", sort_key=1)
MODEL_FIELDS = ("block_size", "n_embd", "n_hidden", "batch_size", "init", "optimizer")


def space(trial: Trial, base: Config, lo: float, hi: float) -> Config:
    """Suggest only the learning rate, log-uniform from `lo` to `hi`."""
    return base.replace(lr=trial.suggest_float("lr", lo, hi, log=True))


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Find a learning rate."""

    trials: int = 0
    """Learning rates to train with, each for --steps. 0 runs the range test instead."""
    prune: bool = False
    repeats: int = 0
    lo: Annotated[float, Parameter(group=RANGE)] = 1e-3
    """Lowest learning rate."""
    hi: Annotated[float, Parameter(group=RANGE)] = 1.0
    """Highest learning rate."""
    range_steps: Annotated[int, Parameter(group=RANGE)] = 1000
    """Steps of the range test, each at another learning rate."""
    stop: Annotated[bool, Parameter(group=RANGE)] = True
    """Stop the range test when the loss exceeds 4 times its lowest."""
    audit: Annotated[bool, SWITCH, Parameter(group=RANGE)] = False
    """Measure the dev loss after --steps at each rule's suggestion, for three models."""
    block_size: Annotated[int, Parameter(group=MODEL)] = LECTURE.block_size
    """Context length in characters."""
    n_embd: Annotated[int, Parameter(group=MODEL)] = LECTURE.n_embd
    """Embedding features of each character."""
    n_hidden: Annotated[int, Parameter(group=MODEL)] = LECTURE.n_hidden
    """Units of the hidden layer."""
    batch_size: Annotated[int, Parameter(group=MODEL)] = LECTURE.batch_size
    """Examples in each step."""
    init: Annotated[Literal["lecture", "kaiming"], Parameter(group=MODEL)] = LECTURE.init
    """Initial weights."""
    optimizer: Annotated[Literal["sgd", "adamw"], Parameter(group=MODEL)] = LECTURE.optimizer
    """Optimizer. adamw needs a lower --lo and --hi."""


def main(args: Args) -> int:
    """Run the range test, the audit of its rules, or the study. Returns the exit code."""
    check_sweep_args(args)
    base = Config(**{name: getattr(args, name) for name in MODEL_FIELDS})
    if args.audit:
        return _run_audit(args)
    if args.trials == 0:
        return _run_range_test(args, base)

    from studies.harness.search.launch import run_study
    from studies.harness.search.samplers.even import EvenSampler

    def write_picture(study: Study, folder: Path) -> None:
        from studies.harness.search.learning_rate import sweep

        sweep.write_picture(args, study, folder)

    return run_study(
        args,
        partial(space, lo=args.lo, hi=args.hi),
        base,
        make_sampler=lambda seed: EvenSampler(),
        write_more=write_picture,
    )


def _run_range_test(args: Args, base: Config) -> int:
    sentence = f"Range test: {args.range_steps:,} learning rates from {args.lo:g} to {args.hi:g}."
    print(sentence, file=sys.stderr, flush=True)
    from studies.harness.search.learning_rate.range_test import run_range_test

    return run_range_test(args, base)


def _run_audit(args: Args) -> int:
    sentence = f"Audit of three models: {args.steps:,} steps at each learning rate."
    print(sentence, file=sys.stderr, flush=True)
    from studies.harness.search.learning_rate.audit_output import run_audit

    return run_audit(args)


if __name__ == "__main__":
    run_script(Args, main)
