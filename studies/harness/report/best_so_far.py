"""Best dev loss so far, against the training steps and the seconds of search."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

# Columns of the curve that can be its horizontal axis, with the label of that axis.
AXES = {
    "steps": "training steps, all trials",
    "seconds": "seconds of search, from the first training step",
}


def best_so_far(trials: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return the best dev loss after each evaluation.

    The clock counts the seconds in which at least one trial ran. It starts at the first training
    step of the study, and continues after a pause, such as between two launches, at the next
    training step. So time to compile the kernel is not search: a trial's `started` is stored before
    its model is built, and building the first model of a process compiles the kernel (about 10 s).

    Args:
        trials: columns trial, started, ended (seconds since the epoch) and seconds (spent on
            training and evaluation); diverged_step if a trial diverged.
        points: one row for each evaluation: trial, step, dev_loss, time (seconds since the epoch).
            Trials that are not in `trials`, such as seed repeats, are ignored.

    Returns:
        Ordered by time: steps (trained so far, summed over trials),
        seconds (of search) and best (lowest dev loss so far, nats per character).
    """
    import pandas as pd

    points = points[points.trial.isin(set(trials.trial))].sort_values("time", kind="stable")
    new_steps = points.step - points.groupby("trial").step.shift(fill_value=0)
    times = points.time.to_numpy()
    seconds = _busy_seconds(
        trials.started.to_numpy(), _first_steps(trials, points), trials.ended.to_numpy(), times
    )
    return pd.DataFrame(
        {
            "steps": new_steps.cumsum().to_numpy(),
            "seconds": seconds,
            "best": np.minimum.accumulate(points.dev_loss.to_numpy()),
        }
    )


def best_at(curve: pd.DataFrame, axis: str, limit: float) -> float:
    """Return the best dev loss at a value of an axis; nan before the first evaluation."""
    reached = curve.best[curve[axis] <= limit]
    return float(reached.iloc[-1]) if len(reached) else float("nan")


def _first_steps(trials: pd.DataFrame, points: pd.DataFrame) -> np.ndarray:
    """Estimate when each trial took its first training step, in seconds since the epoch.

    That is its first evaluation minus the seconds trained until then, which are taken in proportion
    to the steps. A trial without an evaluation trained until it ended. The estimate is never before
    `started`; a trial that recorded no seconds began at `started`.
    """
    by_trial = points.groupby("trial")
    first_step = by_trial.step.first().reindex(trials.trial).to_numpy(float)
    first_time = by_trial.time.first().reindex(trials.trial).to_numpy(float)
    last_step = by_trial.step.last().reindex(trials.trial).to_numpy(float)
    if "diverged_step" in trials:  # the seconds include steps after the last evaluation
        last_step = np.fmax(last_step, trials.diverged_step.to_numpy(float))

    started = trials.started.to_numpy()
    seconds = trials.seconds.to_numpy()
    evaluated = ~np.isnan(first_step)
    end = np.where(evaluated, first_time, trials.ended.to_numpy())
    trained = np.where(evaluated, seconds * first_step / last_step, seconds)
    return np.fmax(started, end - trained)


def _busy_seconds(
    started: np.ndarray, first_steps: np.ndarray, ended: np.ndarray, times: np.ndarray
) -> np.ndarray:
    """Return, for each time, the seconds before it in which at least one trial ran.

    Args:
        started: (N,) start of each trial; trials with nan are ignored.
        first_steps: (N,) first training step of each trial.
        ended: (N,) nan for a trial that has no end yet; it is taken to run until the last time.
        times: (P,) in ascending order.
    """
    known = np.flatnonzero(~np.isnan(started))
    if not len(known):
        return np.zeros(len(times))
    order = known[np.argsort(started[known])]
    started = started[order]
    last = np.maximum(started, times.max(initial=0.0))
    ended = np.maximum.accumulate(np.where(np.isnan(ended[order]), last, ended[order]))

    # A span begins with a trial that started after all earlier ones had ended.
    begins = np.flatnonzero(np.r_[True, started[1:] > ended[:-1]])
    span_starts = np.minimum.reduceat(first_steps[order], begins)
    span_ends = ended[np.r_[begins[1:] - 1, len(ended) - 1]]

    before = np.r_[0.0, np.cumsum(span_ends - span_starts)]
    span = np.maximum(0, np.searchsorted(span_starts, times, side="right") - 1)
    within = np.clip(times - span_starts[span], 0, span_ends[span] - span_starts[span])
    return before[span] + within
