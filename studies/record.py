"""The search for the lowest dev loss: AdamW on a cosine schedule, wide models, dropout, decay, direct connections.

What is evaluated is a running average of the weights. It ends no lower than they do, but it shows early how a trial
will end, so that most trials can be stopped after a fraction of their steps.
"""

from dataclasses import dataclass

from optuna.pruners import SuccessiveHalvingPruner

from makemore.config import Config
from studies.harness.args import StudyArgs
from studies.harness.cli import run_script
from studies.harness.launch import run_study
from studies.harness.samplers import SpreadThenTPE
from studies.harness.spaces import eight_parameters

BASE = Config(optimizer="adamw", schedule="cosine", init="kaiming", ema=0.1)


@dataclass
class Args(StudyArgs):
    """Search eight parameters for the lowest dev loss; by default for ten minutes."""

    study: str = "record"
    trials: int = 10_000
    minutes: float | None = 10.0
    """Minutes that the search of this launch may take; what then runs waits for the next."""
    steps: int = 10_000
    repeats: int = 0


def main(args: Args) -> int:
    """Make the study. A quarter of the trials goes on at 10% of the steps, a quarter of these at 40%."""
    pruner = SuccessiveHalvingPruner(min_resource=max(1, args.steps // 10), reduction_factor=4)
    return run_study(args, eight_parameters, BASE, pruner=pruner, make_sampler=SpreadThenTPE, evaluations=20)


if __name__ == "__main__":
    run_script(Args, main)
