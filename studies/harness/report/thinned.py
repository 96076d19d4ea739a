"""Fewer trials for the figures of a large study, which would otherwise be slow and crowded."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

MAX_POINTS = 2000  # most points in a figure
MAX_LINES = 400  # most lines in a figure
BEST = 0.25  # share of the points or lines that are the trials with the lowest dev losses


def thin(trials: pd.DataFrame, most: int, keep: Collection[int] = ()) -> pd.DataFrame:
    """Return the trials that a figure draws one by one: all, or about `most` of a larger study.

    Those are the best ones, those with the lowest dev loss so far in the order of their numbers,
    those in `keep`, and a random sample of the rest. Equal studies have equal samples.

    Args:
        trials: columns trial and dev_loss; lowest dev loss first.
        most: number of trials.
        keep: numbers of trials to draw in any case.

    Returns:
        Rows of `trials` in their order.
    """
    if len(trials) <= most:
        return trials
    losses = trials.sort_values("trial").dev_loss
    is_kept = (losses == losses.cummin()).reindex(trials.index) | trials.trial.isin(keep)
    is_kept.iloc[: int(BEST * most)] = True
    others = trials[~is_kept]
    n_sampled = min(len(others), max(0, most - int(is_kept.sum())))
    is_kept[others.sample(n_sampled, random_state=0).index] = True
    return trials[is_kept]
