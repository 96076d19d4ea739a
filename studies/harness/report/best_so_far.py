"""What a study had found after so many trials, training steps and seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

AXES = {
    "trials": "trials begun",
    "steps": "training steps, all trials",
    "seconds": "seconds of search",
}


def best_so_far(trials: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """The best dev loss after each evaluation.

    Args:
        trials: with columns trial, started, ended (seconds since the epoch).
        points: every evaluation: trial, step, dev_loss, time. Those of other trials (repeats) are left out.

    Returns:
        By time: trials (begun so far), steps (trained so far, summed over trials), seconds (of search, without the time
        in which no trial ran, as between two launches), best (dev loss so far).
    """
    import pandas as pd

    points = points[points.trial.isin(set(trials.trial))].sort_values("time", kind="stable")
    new_steps = points.step - points.groupby("trial").step.shift(fill_value=0)
    times = points.time.to_numpy()
    return pd.DataFrame(
        {
            "trials": np.searchsorted(np.sort(trials.started.dropna()), times, side="right"),
            "steps": new_steps.cumsum().to_numpy(),
            "seconds": _busy_seconds(trials.started.to_numpy(), trials.ended.to_numpy(), times),
            "best": np.minimum.accumulate(points.dev_loss.to_numpy()),
        }
    )


def best_at(curve: pd.DataFrame, axis: str, limit: float) -> float:
    """The best dev loss that the study had at a value of an axis; nan before its first evaluation."""
    reached = curve.best[curve[axis] <= limit]
    return float(reached.iloc[-1]) if len(reached) else float("nan")


def _busy_seconds(started: np.ndarray, ended: np.ndarray, times: np.ndarray) -> np.ndarray:
    """For each time, the seconds before it in which at least one trial ran."""
    known = ~np.isnan(started)
    started, ended = started[known], ended[known]
    ended = np.where(
        np.isnan(ended), np.maximum(started, times.max(initial=0.0)), ended
    )  # those that still run
    order = np.argsort(started)
    started, ended = started[order], np.maximum.accumulate(ended[order])
    if not len(started):
        return np.zeros(len(times))
    first = np.r_[True, started[1:] > ended[:-1]]  # begins after everything before it had ended
    begins = started[first]
    ends = ended[np.r_[np.flatnonzero(first)[1:] - 1, len(ended) - 1]]
    before = np.r_[0.0, np.cumsum(ends - begins)]
    span = np.maximum(0, np.searchsorted(begins, times, side="right") - 1)
    return before[span] + np.clip(times - begins[span], 0, ends[span] - begins[span])
