"""Pruners: the rules that stop a trial before its last step.

The coordinator asks the study's pruner in one place, `Coordinator._should_prune`. A random share of
the trials that the pruner would stop is audited: it trains to its end, to measure the pruner.
"""

from __future__ import annotations

import numpy as np
from optuna.pruners import BasePruner, MedianPruner, SuccessiveHalvingPruner

from makemore.config import Config

_AUDIT = 1  # separates the draw of `is_audited` from the trial's seed


def default_pruner(base: Config) -> BasePruner:
    """Return the pruner of most studies.

    If a study evaluates an average of the weights (`ema`), early dev losses rank the trials well,
    and halving stops most trials early. Otherwise a high learning rate hides how good a trial is
    until the schedule lowers it. The pruner then waits until 60% of the steps, and stops a trial
    whose dev loss is worse than the median of the trials at the same step.

    Args:
        base: the fixed fields of the study; max_steps and ema count.
    """
    if base.ema > 0:
        return halving_pruner(base.max_steps)
    return MedianPruner(n_startup_trials=5, n_warmup_steps=round(0.6 * base.max_steps))


def halving_pruner(steps: int, factor: int = 4) -> BasePruner:
    """Continue the best 1 / factor of the trials at 10% of the steps, and again at later steps.

    Each judgement comes at `factor` times the steps of the one before: with 4 at 10% and 40% of the
    steps, with 2 at 10, 20, 40 and 80%. This is asynchronous successive halving, Li et al. 2018. It
    needs a dev loss that ranks the trials well at 10% of the steps.

    Args:
        steps: optimizer steps of a whole trial.
        factor: at least 2; a larger one stops more trials.
    """
    return SuccessiveHalvingPruner(min_resource=max(1, steps // 10), reduction_factor=factor)


def is_audited(study_seed: int, number: int, share: float) -> bool:
    """Return whether a trial that the pruner would stop trains to its end anyway.

    One random number per trial decides. So a resumed study chooses the same trials, and a larger
    share adds trials to those of a smaller one.

    Args:
        study_seed: seed of the study.
        number: of the trial.
        share: of the trials that the pruner would stop, from 0 to 1.
    """
    return bool(np.random.default_rng([study_seed, number, _AUDIT]).random() < share)
