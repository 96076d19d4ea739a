"""The five-parameter search: learning rate, context, embedding, hidden width and batch size of the lecture's model.

SGD with the lecture's step schedule; the lecture's own configuration is tried first. Copy this file to search other
things.
"""

from dataclasses import dataclass
from functools import partial

from makemore.config import Config
from makemore.data import load_corpus
from makemore.lr_sweep import DEFAULT_RULE
from studies.harness.args import StudyArgs, check_args
from studies.harness.cli import run_script
from studies.harness.display import make_console, say
from studies.harness.launch import run_study
from studies.harness.lr_search import decade_around_suggestion
from studies.harness.spaces import LECTURE, five_parameters

BASE = Config(optimizer="sgd", schedule="step", init="kaiming")


@dataclass
class Args(StudyArgs):
    """Search lr, block_size, n_embd, n_hidden and batch_size."""

    study: str = "mlp"
    trials: int = 32
    steps: int = 5000
    lr_from_sweep: bool = False
    """Search lr in the decade around what a range test of the lecture's sizes suggests, not from 0.001 to 1; on the
    embedded names that is too low for the large batches (experiments/LOG.md)."""


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    if not args.lr_from_sweep:
        return run_study(args, five_parameters, BASE, first=LECTURE)
    check_args(args)
    lo, hi = decade_around_suggestion(BASE.replace(**LECTURE), load_corpus(args.names))
    say(make_console(stderr=True), f"A range test narrows lr to {lo:g} to {hi:g}, by the rule {DEFAULT_RULE}.")
    first = LECTURE if lo <= LECTURE["lr"] <= hi else None  # a trial outside the range would be none of this study
    return run_study(args, partial(five_parameters, lo=lo, hi=hi), BASE, first=first)


if __name__ == "__main__":
    run_script(Args, main)
