"""Search for the lowest dev loss: AdamW with a cosine schedule, wide models, dropout, weight decay.

Evaluations use a running average of the weights (`ema`). At the end it is as good as the weights
themselves, but early on it ranks the trials better, so most of them can be stopped early.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

from dataclasses import dataclass
from typing import TYPE_CHECKING

from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from optuna import Trial

BASE = Config(optimizer="adamw", schedule="cosine", init="kaiming", ema=0.1)


def space(trial: Trial, base: Config) -> Config:
    """Suggest the five fields of studies/mlp.py, dropout, weight decay and direct connections."""
    return base.replace(
        lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        block_size=trial.suggest_int("block_size", 4, 12),
        n_embd=trial.suggest_int("n_embd", 8, 64, step=8),
        n_hidden=trial.suggest_int("n_hidden", 128, 2048, log=True),
        batch_size=trial.suggest_categorical("batch_size", [128, 256, 512, 1024]),
        dropout=trial.suggest_float("dropout", 0.0, 0.6),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        direct=trial.suggest_categorical("direct", [False, True]),
    )


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Search eight parameters for the lowest dev loss, by default for ten minutes."""

    trials: int = 10_000
    minutes: float | None = 10.0
    steps: int = 10_000
    repeats: int = 0


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    from studies.harness.search.launch import run_study
    from studies.harness.search.pruners import halving_pruner
    from studies.harness.search.samplers import SpreadThenTPE

    return run_study(
        args,
        space,
        BASE,
        make_sampler=SpreadThenTPE,
        pruner=halving_pruner(args.steps, factor=2),
        evaluations=20,
    )


if __name__ == "__main__":
    run_script(Args, main)
