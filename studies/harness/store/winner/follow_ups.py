"""Whether a study is complete: a launch with the same flags would train nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import (
    counts,
    dev_loss,
    is_follow_up,
    ranked,
    repeats_trial,
    was_pruned_early,
)

REPEATED = 3  # number of best trials that get seed repeats


def is_complete(trials: Sequence[FrozenTrial], total: int, repeats: int, finish_best: bool) -> bool:
    """Return whether a launch with these flags would train nothing and requeue nothing."""
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            return False
        if trial.state == TrialState.WAITING and is_follow_up(trial):
            return False
    if sum(counts(trial) for trial in trials) < total:
        return False
    if missing_repeats(trials, REPEATED, repeats):
        return False
    return not (finish_best and unfinished_best(trials))


def missing_repeats(trials: Sequence[FrozenTrial], best: int, repeats: int) -> list[FrozenTrial]:
    """Return the trials that lack seed repeats, once for each repeat that they lack.

    Args:
        best: number of trials to repeat.
        repeats: seed repeats of each.
    """
    complete = [trial for trial in ranked(trials) if trial.state == TrialState.COMPLETE]
    missing = []
    for trial in complete[:best]:
        done = sum(repeats_trial(other, trial.number) for other in trials)
        missing += [trial] * (repeats - done)
    return missing


def unfinished_best(trials: Sequence[FrozenTrial]) -> FrozenTrial | None:
    """Return the best trial if it was pruned and no trial finishes it, otherwise None."""
    best = next(iter(ranked(trials)), None)
    if best is None or not was_pruned_early(best):
        return None
    if any(_finishes(trial, best.number) for trial in trials):
        return None
    return best


def _finishes(trial: FrozenTrial, number: int) -> bool:
    """Return whether a trial trains the pruned trial `number` to its end."""
    return trial.user_attrs.get("finishes") == number and "replaced" not in trial.user_attrs


def summarize(trials: Sequence[FrozenTrial]) -> dict[str, Any]:
    """Return the counts of a study's trials and the best trial, as --json prints them."""
    states = [trial.state for trial in trials if counts(trial)]
    best = next(iter(ranked(trials)), None)
    return {
        "trials": len(states),
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "best_trial": best.number if best else None,
        "best_dev_loss": dev_loss(best) if best else None,
        "best_params": best.params if best else None,
    }
