"""Whether a study is complete, so a launch trains nothing more; and its summary for --json."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import (
    counts,
    dev_loss,
    has_diverged,
    is_follow_up,
    ranked,
    was_pruned_early,
)
from studies.harness.store.winner.race import plan_repeats
from studies.harness.store.winner.winner import find_winner


def is_complete(
    trials: Sequence[FrozenTrial], total: int, repeats: int | None, finish_best: bool
) -> bool:
    """Return whether a launch with these flags would train nothing and requeue nothing."""
    for trial in trials:
        if trial.state == TrialState.RUNNING:
            return False
        if trial.state == TrialState.WAITING and is_follow_up(trial):
            return False
    if sum(counts(trial) for trial in trials) < total:
        return False
    if plan_repeats(trials, repeats):
        return False
    return not (finish_best and unfinished_best(trials))


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
    """Return the counts of a study's trials and the winner, as --json prints them.

    pruned includes the diverged trials, which end early too.

    best_trial is the winner. best_mean, best_ci (half-width of the 95% interval) and best_n come
    from its seed repeats, and are None and 0 without them. selected_dev_loss is the winner's own
    loss, and best_dev_loss the lowest loss of a single trial, best_dev_loss_trial. All losses are
    in nats per character.
    """
    counted = [trial for trial in trials if counts(trial)]
    states = [trial.state for trial in counted]
    lowest = next(iter(ranked(trials)), None)
    winner = find_winner(trials)
    group = winner.group if winner else None
    return {
        "trials": len(states),
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "diverged": sum(has_diverged(trial) for trial in counted),
        "failed": states.count(TrialState.FAIL),
        "best_trial": winner.number if winner else None,
        "best_mean": group.mean if group else None,
        "best_ci": group.margin if group else None,
        "best_n": group.n if group else 0,
        "best_tied": [tied.trial for tied in winner.tied] if winner else [],
        "selected_dev_loss": winner.own if winner else None,
        "best_dev_loss": dev_loss(lowest) if lowest else None,
        "best_dev_loss_trial": lowest.number if lowest else None,
        "best_params": winner.trial.params if winner else None,
    }
