"""Verdict on the number of trials: the gain of the last ones, and the expected gain of more."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.ranges import MIN_MEASURED

if TYPE_CHECKING:
    import pandas as pd

QUARTER = 0.25
SMALL_SHARE = 0.02  # share of the total gain that is small, if the noise between seeds is unknown
BAND = 0.90  # probability of the band around the expected best
MAX_FACTOR = 2.0  # random draws from n trials say little about more than 2n trials
MAX_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Stopping:
    """Whether more trials are worth their time. All gains are in nats per character.

    Attributes:
        verdict: "continue", "stop" or "unknown".
        gain: dev loss of the first measured trial minus the best.
        gain_last_quarter: by how much the last quarter of the trials lowered the best dev loss.
        gain_last_half: the same for the last half, which doubled the number of trials.
        expected_gain: expected best of n random draws from the n trials, minus that of 2n draws.
        more_trials: how many trials to add; 0 unless the verdict is "continue".
        advice: what to do, one sentence.
        reason: why, a few sentences.
    """

    verdict: str
    gain: float
    gain_last_quarter: float
    gain_last_half: float
    expected_gain: float
    more_trials: int
    advice: str
    reason: str


def judge_stopping(trials: pd.DataFrame, noise_sd: float | None = None) -> Stopping:
    """Judge the number of trials by the gain of the last half and the expected gain of doubling it.

    If the expected gain is above the threshold, as many trials again are advised. If only the gain
    of the last half is, the sampler improves faster than random draws, which they cannot predict;
    then a quarter more is advised. The last quarter is reported but does not decide: in trials of
    random order, it has the best one in one case of four only.

    Args:
        trials: columns trial, state, reason, dev_loss, origin, finishes; without seed repeats.
        noise_sd: standard deviation of the dev loss between seeds, the threshold for a gain. If
            unknown, the threshold is 2% of the total gain.
    """
    order = order_trials(trials)
    measured = order[order.loss.notna()]
    if len(measured) < MIN_MEASURED:
        return _unknown(
            f"{len(measured)} trials have a dev loss; at least {MIN_MEASURED} are needed."
        )
    n = len(order)
    first = measured.iloc[0]
    gain = float(first.loss - order.best.iloc[-1])
    if noise_sd is None and gain == 0:
        return _unknown(
            f"No trial was better than the first measured one, trial {first.trial:.0f}, and the "
            "noise between seeds is unknown; measure it with --repeats 3."
        )

    quarter = max(1, int(n * QUARTER))
    late = _gain_of_last(order, quarter, first.loss)
    half = _gain_of_last(order, n // 2, first.loss)
    best_of_n, best_of_2n = expected_best(order, np.array([n, round(MAX_FACTOR * n)]))["mean"]
    expected = float(best_of_n - best_of_2n)
    threshold = SMALL_SHARE * gain if noise_sd is None else noise_sd

    more = 0
    advice = "Stop the search: more trials are unlikely to help."
    if expected > threshold:
        more = n
        advice = f"Run {more} more trials."
    elif half > threshold:
        more = quarter
        advice = f"Run {more} more trials, then judge again."
    gains = _describe_gains(order, quarter, late, half)
    comparison = _compare_with_threshold(half, expected, threshold, n, noise_sd is not None)
    verdict = "continue" if more else "stop"
    return Stopping(verdict, gain, late, half, expected, more, advice, f"{gains} {comparison}")


def _unknown(reason: str) -> Stopping:
    nan = math.nan
    advice = "It is unknown whether more trials would help."
    return Stopping("unknown", nan, nan, nan, nan, 0, advice, reason)


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
        f"The last quarter of the trials ({quarter}, from trial {order.trial.iloc[-quarter]} on)"
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


def _compare_with_threshold(
    half: float, expected: float, threshold: float, n: int, noise_known: bool
) -> str:
    """Compare the gain of the last half and the expected gain with the threshold."""
    name = f"the noise between seeds (sd {threshold:.4f})"
    if not noise_known:
        share = f"{SMALL_SHARE:.0%} of the total gain"
        name = f"{share} ({threshold:.4f}; the noise between seeds is unknown)"
    half_above = half > threshold
    expected_above = expected > threshold
    relation = {
        (True, True): "also above it",
        (True, False): "not above it",
        (False, True): "above it",
        (False, False): "not above it either",
    }[half_above, expected_above]
    sentences = [
        f"The gain of the last half is {'above' if half_above else 'not above'} {name}.",
        f"The expected best of {round(MAX_FACTOR * n)} random draws from these trials is "
        f"{expected:.4f} nats lower than that of {n} draws, which is {relation}.",
    ]
    if half_above and not expected_above:
        sentences.append("So the sampler improves faster than random draws.")
    return " ".join(sentences)


def order_trials(trials: pd.DataFrame) -> pd.DataFrame:
    """Return the trials in the order of their proposals; trials that finish another are left out.

    Args:
        trials: columns trial, state, reason, dev_loss, origin, finishes.

    Returns:
        trial, enqueued (rather than proposed by the sampler), loss (best dev loss of a complete or
        pruned trial; nan for a diverged or failed one) and best (so far; nan before the first
        loss).
    """
    import pandas as pd

    proposed = trials[trials.finishes.isna()].sort_values("trial")
    diverged = proposed.reason.astype(str).str.startswith("diverged")
    has_result = proposed.state.isin(["COMPLETE", "PRUNED"]) & ~diverged
    loss = proposed.dev_loss.where(has_result).to_numpy(float)
    return pd.DataFrame(
        {
            "trial": proposed.trial.to_numpy(),
            "enqueued": proposed.origin.notna().to_numpy(),
            "loss": loss,
            "best": np.fmin.accumulate(loss) if len(loss) else loss,
        }
    )


def expected_best(order: pd.DataFrame, counts: np.ndarray | None = None) -> pd.DataFrame:
    """Return the expected best dev loss of random draws from the study's trials.

    This is the expected validation performance of Dodge et al. (2019), in closed form: of m draws
    with replacement from D losses, the lowest exceeds the k-th lowest loss with probability
    ((D - k) / D)^m. Enqueued trials are not drawn; they come first, as in the study. A trial
    without a loss counts as the worst one.

    Args:
        order: from `order_trials`, with at least one measured trial.
        counts: (C,) numbers of trials; by default at most 200 of them, up to twice the study's.

    Returns:
        trials (the counts), mean (expected best dev loss, nats per character), low and high (its
        90% band).
    """
    import pandas as pd

    n = len(order)
    n_enqueued = int(order.enqueued.sum())
    if counts is None:
        first = max(1, n_enqueued)
        last = round(MAX_FACTOR * n)
        n_points = min(MAX_POINTS, last - first + 1)
        counts = np.unique(np.linspace(first, last, n_points).round().astype(int))

    known = order.loss.fillna(order.loss.max())
    start = known[order.enqueued].min() if n_enqueued else known.max()
    # (D,) ascending; a draw cannot raise the best of the enqueued trials.
    drawn = np.minimum(np.sort(known[~order.enqueued].to_numpy()), start)
    losses = np.append(drawn, start)
    # Probability that one draw exceeds the k-th lowest loss, and that all draws do.
    exceeds_once = 1 - np.arange(1, len(drawn) + 1) / max(1, len(drawn))
    exceeds = exceeds_once[None, :] ** np.maximum(0, counts - n_enqueued)[:, None]  # (C, D)
    mean = losses[0] + exceeds @ np.diff(losses)

    # Probability that the best is at most each loss.
    reached = np.column_stack([1 - exceeds, np.ones(len(counts))])  # (C, D + 1)
    tail = (1 - BAND) / 2
    low = losses[(reached >= tail - 1e-12).argmax(axis=1)]
    high = losses[(reached >= 1 - tail - 1e-12).argmax(axis=1)]
    return pd.DataFrame({"trials": counts, "mean": mean, "low": low, "high": high})
