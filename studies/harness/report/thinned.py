"""Fewer trials for the figures of a large study, which would otherwise be slow and crowded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MAX_DRAWN = 2000  # trials in a figure
N_BEST = 500  # of them, those with the lowest dev losses


def thin(trials: pd.DataFrame, keep: Collection[int] = ()) -> pd.DataFrame:
    """Return the trials that figures draw one by one: all of them, or MAX_DRAWN.

    Of a larger study these are the best N_BEST, those that were the best so far when they ended in
    the order of their numbers, those in `keep`, and a random sample of the others. The same trials
    give the same sample.

    Args:
        trials: columns trial and dev_loss; lowest dev loss first.
        keep: numbers of trials to draw in any case.

    Returns:
        Rows of `trials` in their order.
    """
    if len(trials) <= MAX_DRAWN:
        return trials
    losses = trials.sort_values("trial").dev_loss
    is_record = (losses == losses.cummin()).reindex(trials.index)
    is_kept = is_record | trials.trial.isin(keep)
    is_kept[:N_BEST] = True
    others = trials[~is_kept]
    n_sampled = min(len(others), max(0, MAX_DRAWN - int(is_kept.sum())))
    is_kept[others.sample(n_sampled, random_state=0).index] = True
    return trials[is_kept]


