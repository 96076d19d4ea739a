"""Search the lecture's model: learning rate, block size, embedding, hidden width, batch size.

SGD with the lecture's step schedule. The lecture's own configuration is the first trial. Trials
evaluate an average of the weights (`ema`), because its early losses rank the trials better. The
lecture evaluates the weights themselves, as experiments/configs/lecture.toml does.
Copy this file to search something else: change the space, the base and the defaults.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import sys
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Annotated

from makemore.cli import SWITCH
from makemore.config import Config
from studies.harness.cli.args import StudyArgs, check_args
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from optuna import Trial

# Fixed fields of every trial.
BASE = Config(optimizer="sgd", schedule="step", init="kaiming", ema=0.1)

# The first trial: the lecture's configuration.
LECTURE = {"lr": 0.1, "block_size": 3, "n_embd": 10, "n_hidden": 200, "batch_size": 32}


def space(trial: Trial, base: Config, lo: float = 1e-3, hi: float = 1.0) -> Config:
    """Suggest the searched fields; `lo` and `hi` bound the learning rate."""
    return base.replace(
        lr=trial.suggest_float("lr", lo, hi, log=True),
        block_size=trial.suggest_int("block_size", 2, 8),
        n_embd=trial.suggest_int("n_embd", 2, 24),
        n_hidden=trial.suggest_int("n_hidden", 50, 300, step=50),
        batch_size=trial.suggest_categorical("batch_size", [32, 64, 128, 256]),
    )


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Search lr, block_size, n_embd, n_hidden and batch_size."""

    trials: int = 32
    steps: int = 5000
    lr_from_sweep: Annotated[bool, SWITCH] = False
    """Run a range test first, and search lr only near its result; too low for large batches."""


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    from studies.harness.search.launch import run_study

    if args.lr_from_sweep:
        return _run_narrowed(args)
    return run_study(args, space, BASE, first=LECTURE)


def _run_narrowed(args: Args) -> int:
    check_args(args)
    print("Running a range test to narrow lr.", file=sys.stderr, flush=True)

    from makemore.data import load_corpus
    from makemore.lr_sweep import DEFAULT_RULE
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.search.launch import run_study
    from studies.harness.search.learning_rate.range_test import decade_around_suggestion

    lo, hi = decade_around_suggestion(BASE.replace(**LECTURE), load_corpus(args.names))
    sentence = f"A range test narrows lr to {lo:g} to {hi:g}, by the rule {DEFAULT_RULE}."
    say(make_console(stderr=True), sentence)
    # A first trial outside the range would not belong to the study.
    first = LECTURE if lo <= LECTURE["lr"] <= hi else None
    return run_study(args, partial(space, lo=lo, hi=hi), BASE, first=first)


if __name__ == "__main__":
    run_script(Args, main)
