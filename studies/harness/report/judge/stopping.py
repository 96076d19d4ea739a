"""Have we searched enough: what the last trials brought, and what as many again would bring."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.ranges import FEWEST

if TYPE_CHECKING:
    import pandas as pd

QUARTER = 0.25
LITTLE = 0.02  # share of the whole gain that counts as little where the noise of a seed is unknown
BAND = 0.90
FURTHEST = 2.0  # times the trials that there are: a draw from them foretells nothing beyond
MOST_POINTS = 200  # of a curve


@dataclass(frozen=True)
class Search:
    """Whether further trials are worth their time.

    Attributes:
        verdict: "go on", "enough", or "unknown".
        gain: dev loss of the first measured trial minus the best.
        late_gain: by how much the last quarter of the trials lowered the best.
        half_gain: the same for the last half, the last doubling of the trials.
        foretold: by how much a blind draw of twice as many trials is better than one of as many, on average.
        more: how many further trials to take; 0 unless the verdict is "go on".
        advice: what to do, in a sentence.
        reason: why, in a few.
    """

    verdict: str
    gain: float
    late_gain: float
    half_gain: float
    foretold: float
    more: int
    advice: str
    reason: str


def judge_search(trials: pd.DataFrame, noise_sd: float | None = None) -> Search:
    """Judge the number of trials by what their last doubling brought and by what a blind draw foretells of the next.

    The last quarter is told but does not decide: where trials come in any order it holds the best in one case of four
    only. A study that still falls while a blind draw foretells little lives on what its sampler learns, which the draw
    cannot see; there a quarter more is all that is advised.

    Args:
        trials: with columns trial, state, reason, dev_loss, origin; seed repeats are not among them.
        noise_sd: standard deviation of the dev loss between seeds; without it 2% of the whole gain counts as little.
    """
    order = in_order(trials)
    n, best = len(order), order.best.to_numpy()
    measured = order[order.loss.notna()]
    if len(measured) < FEWEST:
        return _unknown(
            f"{len(measured)} measured trials are too few to tell whether more would help; take {FEWEST}."
        )
    first, quarter = measured.iloc[0], max(1, int(n * QUARTER))
    gain = float(first.loss - best[-1])
    if noise_sd is None and gain == 0:
        why = f"No trial was better than the first measured one, trial {first.trial:.0f}"
        return _unknown(
            f"{why}, and the noise of a seed is unknown: nothing tells whether more trials would help."
        )
    late, half = (
        float(np.nan_to_num(best[n - last - 1], nan=first.loss) - best[-1])
        for last in (quarter, n // 2)
    )
    as_many, twice = expected_best(order, np.array([n, round(FURTHEST * n)]))["mean"]
    foretold = float(as_many - twice)
    little = LITTLE * gain if noise_sd is None else noise_sd
    falls, foretells = half > little, foretold > little
    more = n if foretells else quarter if falls else 0
    advice = (
        f"Another {more} trials are worth it."
        if foretells
        else f"Take another {more} trials and look again."
    )
    span = f"{quarter}, from trial {order.trial.iloc[-quarter]} on"  # repeats may have taken numbers in between
    reasons = [
        f"The last quarter of the trials ({span}) {_brought(gain, late, half, f'since trial {first.trial:.0f}')}",
        _weighed(falls, foretells, little, noise_sd is not None),
        f"{n} more, drawn blindly from these, would bring {foretold:.4f} on average"
        + (", so it is the sampler that gets better." if falls and not foretells else "."),
    ]
    advice = advice if more else "More trials of this kind will hardly help."
    return Search(
        "go on" if more else "enough", gain, late, half, foretold, more, advice, " ".join(reasons)
    )


def _unknown(reason: str) -> Search:
    return Search(
        "unknown",
        math.nan,
        math.nan,
        math.nan,
        math.nan,
        0,
        "Whether more would help is unknown.",
        reason,
    )


def _brought(gain: float, late: float, half: float, since: str) -> str:
    """What the last quarter of the trials and the last half of them brought."""
    share = f"{(late or half) / (gain or 1):.0%} of the whole gain of {gain:.4f} {since}"
    if late > 0:
        return f"lowered the best dev loss by {late:.4f}, {share}; the last half by {half:.4f}."
    if half > 0:
        return f"did not lower the best dev loss; the last half did by {half:.4f}, {share}."
    return f"did not lower the best dev loss, nor did the last half; the whole gain {since} is {gain:.4f}."


def _weighed(falls: bool, foretells: bool, little: float, known: bool) -> str:
    """How the last half, and what is foretold of the next doubling, compare with chance."""
    noise = f"the noise of a seed ({little:.4f})"
    if not known:
        noise = f"{LITTLE:.0%} of that gain ({little:.4f}; the noise of a seed is unknown)"
    ends = f"{'and' if falls == foretells else 'but'} the next doubling promises {'more' if foretells else 'less'}"
    return f"The last half brought {'more' if falls else 'no more'} than {noise}, {ends}:"


def in_order(trials: pd.DataFrame) -> pd.DataFrame:
    """The trials in the order in which they were proposed; one that finishes another was not.

    Returns:
        trial, given (enqueued, not proposed by the sampler), loss (the best dev loss of a complete or pruned trial; nan
        for a diverged or failed one, which has no result), best (so far; nan before the first result).
    """
    import pandas as pd

    ended = trials[trials.finishes.isna()].sort_values("trial")
    has_result = ended.state.isin(["COMPLETE", "PRUNED"]) & ~ended.reason.astype(
        str
    ).str.startswith("diverged")
    loss = ended.dev_loss.where(has_result).to_numpy(float)
    best = np.fmin.accumulate(loss) if len(loss) else loss
    columns = {
        "trial": ended.trial.to_numpy(),
        "given": ended.origin.notna().to_numpy(),
        "loss": loss,
        "best": best,
    }
    return pd.DataFrame(columns)


def expected_best(order: pd.DataFrame, counts: np.ndarray | None = None) -> pd.DataFrame:
    """The best after so many trials, had the study's own trials come in any order: their bootstrap, in closed form.

    Trials that the sampler proposed are drawn with replacement: of m draws from D losses, the lowest exceeds the k-th
    lowest loss with probability ((D - k) / D)^m. Those that were enqueued stand first, as they did. A trial without a
    result counts as the worst one.

    Args:
        order: from `in_order`, with at least one measured trial.
        counts: numbers of trials; up to twice those that there are, if not given.

    Returns:
        trials, mean (of the best dev loss), low and high (the 90% band).
    """
    import pandas as pd

    given, n = int(order.given.sum()), len(order)
    if counts is None:
        first, last = max(1, given), round(FURTHEST * n)
        counts = np.unique(
            np.linspace(first, last, min(MOST_POINTS, last - first + 1)).round().astype(int)
        )
    known = order.loss.fillna(order.loss.max())
    start = known[order.given].min() if given else known.max()
    drawn = np.minimum(
        np.sort(known[~order.given].to_numpy()), start
    )  # (D,); a draw cannot raise the best
    losses = np.append(drawn, start)
    shares = 1 - np.arange(1, len(drawn) + 1) / max(
        1, len(drawn)
    )  # of the draws that exceed the k-th lowest
    exceeds = shares[None, :] ** np.maximum(0, counts - given)[:, None]  # (counts, D)
    mean = losses[0] + exceeds @ np.diff(losses)
    reached = np.column_stack(
        [1 - exceeds, np.ones(len(counts))]
    )  # how often the best is as low as each loss
    tail = (1 - BAND) / 2
    low, high = (losses[(reached >= share - 1e-12).argmax(axis=1)] for share in (tail, 1 - tail))
    return pd.DataFrame({"trials": counts, "mean": mean, "low": low, "high": high})
