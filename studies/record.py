"""Search for the lowest dev loss: AdamW with a cosine schedule, wide models, dropout, weight decay.

Evaluations use a running average of the weights (`ema`). At the end it is as good as the weights
themselves, but early on it ranks the trials better, so most of them can be stopped early.

The ranges are around the best trials of earlier, wider searches. `--range` replaces one of them.
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
    """Suggest the five fields of studies/mlp.py, dropout and weight decay."""
    return base.replace(
        lr=trial.suggest_float("lr", 5e-4, 5e-3, log=True),
        block_size=trial.suggest_int("block_size", 5, 8),
        n_embd=trial.suggest_int("n_embd", 32, 96, step=8),
        n_hidden=trial.suggest_int("n_hidden", 768, 2048, log=True),
        batch_size=trial.suggest_categorical("batch_size", [512, 1024]),
        dropout=trial.suggest_float("dropout", 0.0, 0.3),
        weight_decay=trial.suggest_float("weight_decay", 0.05, 0.5, log=True),
    )


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Search seven parameters for the lowest dev loss, by default for ten minutes."""

    trials: int = 10_000
    minutes: float | None = 10.0
    steps: int = 10_000
    repeats: int = 0


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    from studies.harness.search.launch import run_study
    from studies.harness.search.pruners import halving_pruner
    from studies.harness.search.samplers.spread import SpreadThenTPE

    return run_study(
        args,
        space,
        BASE,
        make_sampler=SpreadThenTPE,
        pruner=halving_pruner(args.steps, factor=3),
        evaluations=20,
    )


if __name__ == "__main__":
    run_script(Args, main)
