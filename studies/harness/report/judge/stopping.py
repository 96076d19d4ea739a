"""Verdict on the number of trials: what the last ones gained, and whether that can be judged."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.pruning import Pruning
from studies.harness.report.judge.ranges import MIN_MEASURED
from studies.harness.store.text import counted

if TYPE_CHECKING:
    import pandas as pd

QUARTER = 0.25
SMALL_SHARE = 0.02  # share of the total gain that is small, if the noise between seeds is unknown


@dataclass(frozen=True)
class Stopping:
    """Whether more trials are worth their time. All gains are in nats per character.

    Gains are decreases of the best final dev loss so far, over the trials in the order of their
    numbers.

    Attributes:
        verdict: "continue", "stop" or "unknown".
        gain: of all trials after the first complete one.
        gain_last_quarter: of the last quarter of the trials.
        gain_last_half: of the last half of the trials, which doubled their number.
        more_trials: how many trials to add; 0 unless the verdict is "continue".
        advice: what to do, one sentence.
        reason: why, a few sentences.
    """

    verdict: str
    gain: float
    gain_last_quarter: float
    gain_last_half: float
    more_trials: int
    advice: str
    reason: str


def judge_stopping(
    trials: pd.DataFrame, pruning: Pruning, noise_sd: float | None = None
) -> Stopping:
    """Judge the number of trials by the gain of the last half.

    Only complete trials have a final dev loss, so only they count in gains. If the pruner may have
    stopped the best trials, the gains are known but the verdict is not. The last quarter is
    reported but does not decide: in trials of random order, it has the best one in one case of
    four only. Nothing is predicted: what further trials bring depends on the sampler.

    Args:
        trials: columns trial, state, dev_loss, finishes; without seed repeats.
        pruning: verdict on the pruner.
        noise_sd: standard deviation of the dev loss between seeds, the threshold for a gain. If
            unknown, the threshold is 2% of the total gain.
    """
    order = order_trials(trials)
    complete = order[order.loss.notna()]
    if len(complete) < MIN_MEASURED:
        return _unknown(
            f"{counted(len(complete), 'complete trial')}; at least {MIN_MEASURED} are needed."
        )
    n = len(order)
    first = complete.iloc[0]
    gain = float(first.loss - order.best.iloc[-1])
    quarter = max(1, int(n * QUARTER))
    late = _gain_of_last(order, quarter, first.loss)
    half = _gain_of_last(order, n // 2, first.loss)
    gains = _describe_gains(order, quarter, late, half)
    if pruning.may_hide_best:
        why = "the pruner is harmful"
        if pruning.verdict == "unknown":
            why = "it is unknown whether it stops good ones"
        hidden = f"The pruner stopped {pruning.n_pruned:,} of {counted(n, 'trial')}, and {why}."
        return _unknown(f"{hidden} {gains}", gain, late, half)
    if noise_sd is None and gain == 0:
        return _unknown(
            f"No trial was better than the first complete one, trial {first.trial:.0f}, and the "
            "noise between seeds is unknown; measure it with --repeats 3.",
        )

    threshold = SMALL_SHARE * gain if noise_sd is None else noise_sd
    reason = f"{gains} {_compare_with_threshold(half, threshold, noise_sd is not None)}"
    if half > threshold:
        advice = f"Run {quarter:,} more trials, then judge again."
        return Stopping("continue", gain, late, half, quarter, advice, reason)
    return Stopping("stop", gain, late, half, 0, "Stop the search here.", reason)


def _unknown(
    reason: str, gain: float = math.nan, late: float = math.nan, half: float = math.nan
) -> Stopping:
    advice = "It is unknown whether more trials would help."
    return Stopping("unknown", gain, late, half, 0, advice, reason)


def _gain_of_last(order: pd.DataFrame, count: int, first_loss: float) -> float:
    """Return by how much the last `count` trials lowered the best dev loss."""
    best = order.best.to_numpy()
    before = np.nan_to_num(best[len(best) - count - 1], nan=first_loss)
    return float(before - best[-1])


def _describe_gains(order: pd.DataFrame, quarter: int, late: float, half: float) -> str:
    """Describe the gains of the last quarter and the last half of the trials."""
    first = order[order.loss.notna()].iloc[0]
    gain = first.loss - order.best.iloc[-1]
    since = f"since trial {first.trial:.0f}"
    share = f"{(late or half) / (gain or 1):.0%} of the total gain of {gain:.4f} {since}"
    # Seed repeats may have taken numbers in between, so the quarter names its first trial.
    start = (
        f"The last quarter of the trials ({quarter:,}, from trial {order.trial.iloc[-quarter]} on)"
    )
    if late > 0:
        return (
            f"{start} lowered the best dev loss by {late:.4f} nats, {share}; the last half lowered "
            f"it by {half:.4f}."
        )
    if half > 0:
        lowered = f"the last half did by {half:.4f} nats, {share}"
        return f"{start} did not lower the best dev loss; {lowered}."
    return (
        f"{start} did not lower the best dev loss, nor did the last half; the total gain {since} "
        f"is {gain:.4f} nats."
    )


def _compare_with_threshold(half: float, threshold: float, noise_known: bool) -> str:
    """Compare the gain of the last half with the threshold."""
    name = f"the noise between seeds (sd {threshold:.4f})"
    if not noise_known:
        share = f"{SMALL_SHARE:.0%} of the total gain"
        name = f"{share} ({threshold:.4f}; the noise between seeds is unknown)"
    return f"The gain of the last half is {'above' if half > threshold else 'not above'} {name}."


def order_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials in the order of their numbers, without those that finish another.

    It is the only order of trials in a report: everything else that the user sees has numbers too.

    Args:
        trials: columns trial, state, dev_loss, finishes.

    Returns:
        trial, loss (final dev loss of a complete trial, else nan) and best (lowest loss so far;
        nan before the first one).
    """
    import pandas as pd

    proposed = trials[trials.finishes.isna()].sort_values("trial")
    loss = proposed.dev_loss.where(proposed.state == "COMPLETE").to_numpy(float)
    return pd.DataFrame(
        {
            "trial": proposed.trial.to_numpy(),
            "loss": loss,
            "best": np.fmin.accumulate(loss) if len(loss) else loss,
        }
    )
