"""Verdict on the pruner, from the audited trials: did it stop trials that would be the best?

The pruner would have stopped an audited trial, but it trained to its end. Audited trials are a
random sample of those that the pruner stops. The others say nothing about them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.ranges import N_BEST
from studies.harness.store.text import counted

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.25, 0.5)  # of the steps, at which the early dev loss is taken
MIN_COMPLETE = 2 * N_BEST  # complete trials; among fewer, the best five are nothing special
CONFIDENCE = 0.95
HARMFUL = 1.0  # lost trials of the best five; harmful if at least so many are certain
FAIR = N_BEST / 2  # fair if fewer are possible
AUDIT_MORE = 0.5  # suggested share of audits; with less, no pruner can be shown to be fair


@dataclass(frozen=True)
class RankCorrelation:
    """How well the dev loss at a step predicts the final ranking, over the complete trials.

    Attributes:
        share: the step as a share of all steps.
        step: the last evaluated step up to that share.
        correlation: Spearman's rank correlation with the final dev loss; nan if undefined.
        n: number of complete trials.
    """

    share: float
    step: int
    correlation: float
    n: int


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95% interval."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Pruning:
    """Whether the pruner stopped trials that would have ended among the best five.

    Attributes:
        verdict: "harmful", "fair", "unknown", or "none" if no trial was pruned.
        n_trials: number of trials of the search.
        n_pruned: how many of them the pruner stopped.
        n_audited: how many it would have stopped, had they not been audited.
        n_complete: number of complete trials, audited ones included.
        n_best: audited trials that ended among the best five.
        rate: n_best / n_audited; None without audits.
        lost: how many of the best five were lost to pruning; None without audits.
    """

    verdict: str
    n_trials: int
    n_pruned: int
    n_audited: int
    n_complete: int
    n_best: int
    rate: Interval | None
    lost: Interval | None

    @property
    def sentence(self) -> str:
        """The verdict for a reader, with the numbers that it rests on."""
        if self.verdict == "none":
            return "No trial was pruned."
        unknown = "It is unknown whether the pruner stops good trials:"
        advice = f"audit more trials with --audit-pruning {AUDIT_MORE}, or search with --no-prune."
        if self.rate is None or self.lost is None:
            return f"{unknown} none of the {self.n_pruned:,} that it stopped was audited; {advice}"
        if self.n_complete < MIN_COMPLETE:
            return (
                f"{unknown} {counted(self.n_complete, 'complete trial')}, and at least "
                f"{MIN_COMPLETE} are needed (audited: {self.n_audited}); {advice}"
            )
        conclusion = {
            "harmful": "The pruner is harmful; search with --no-prune.",
            "fair": "The pruner is fair.",
            "unknown": f"These are too few audits to judge the pruner; {advice}",
        }[self.verdict]
        return (
            f"{self.n_best} of {self.n_audited:,} audited trials ended among the best {N_BEST} "
            f"(95% interval {self.rate.low:.0%} to {self.rate.high:.0%}), so "
            f"pruning {counted(self.n_pruned, 'trial')} lost about {self.lost.estimate:.0f} of the "
            f"best {N_BEST} ({self.lost.low:.0f} to {self.lost.high:.0f}). {conclusion}"
        )

    @property
    def may_hide_best(self) -> bool:
        """Whether the best trials may be among the pruned ones, so the others tell too little."""
        mostly_pruned = 2 * self.n_pruned > self.n_trials
        return self.verdict == "harmful" or (self.verdict == "unknown" and mostly_pruned)


def rank_correlations(
    trials: pd.DataFrame, points: pd.DataFrame, max_steps: int
) -> list[RankCorrelation]:
    """Correlate the dev loss at a quarter and at half of the steps with the trial's best.

    Only complete trials count. The pruner chose most of them by their early losses, so the
    correlation says nothing about the trials that it stopped; `judge_pruning` does.

    Args:
        trials: columns trial, state, dev_loss.
        points: one row for each evaluation: trial, step, dev_loss.
        max_steps: steps of each trial.
    """
    final = trials[trials.state == "COMPLETE"].set_index("trial").dev_loss.to_frame("end")
    found = []
    for share in SHARES:
        step, losses = losses_at(points, share * max_steps)
        both = final.join(losses.rename("early"), how="inner")
        correlation = math.nan
        if len(both) >= 3:
            correlation = spearman(both.early.to_numpy(), both.end.to_numpy())
        found.append(RankCorrelation(share, step, correlation, len(both)))
    return found


def losses_at(points: pd.DataFrame, limit: float) -> tuple[int, pd.Series]:
    """Return the last evaluated step up to a limit, and the dev loss at it by trial."""
    until = points[points.step <= limit]
    step = int(until.step.max()) if len(until) else 0
    return step, until[until.step == step].set_index("trial").dev_loss


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Return Spearman's rank correlation; nan if one side is constant.

    Equal values share their mean rank.
    """
    import pandas as pd

    x = pd.Series(a).rank().to_numpy()
    y = pd.Series(b).rank().to_numpy()
    x = x - x.mean()
    y = y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def judge_pruning(trials: pd.DataFrame) -> Pruning:
    """Judge the pruner by the audited trials alone.

    The best five are those of all complete trials, audited ones included.

    Args:
        trials: columns trial, state, reason, dev_loss, finishes, audited; without seed repeats.
    """
    searched = trials[trials.finishes.isna()]
    pruned = searched[(searched.state == "PRUNED") & (searched.reason == "pruned")]
    # An audited trial that diverged later was not among the best, and counts.
    ended = searched.state.isin(["COMPLETE", "PRUNED"])
    audited = searched[searched.audited.notna() & ended]
    complete = searched[searched.state == "COMPLETE"].sort_values(["dev_loss", "trial"])
    n_best = int(complete.audited[:N_BEST].notna().sum())
    rate = lost = None
    if len(audited):
        rate = share_interval(n_best, len(audited))
        lost = _lost(rate, len(pruned))
    verdict = _verdict(len(pruned), len(complete), lost)
    return Pruning(
        verdict, len(searched), len(pruned), len(audited), len(complete), n_best, rate, lost
    )


def share_interval(k: int, n: int) -> Interval:
    """Return the share k of n with its 95% interval by Clopper and Pearson."""
    from scipy.special import betaincinv

    tail = (1 - CONFIDENCE) / 2
    low = float(betaincinv(k, n - k + 1, tail)) if k > 0 else 0.0
    high = float(betaincinv(k + 1, n - k, 1 - tail)) if k < n else 1.0
    return Interval(k / n, low, high)


def _lost(rate: Interval, n_pruned: int) -> Interval:
    """Return how many of the best five were lost, at most 5 and at most `n_pruned`.

    At a rate r, r * n_pruned of the pruned trials would have been at least as good as the best
    five that are left. Each of these and of the five left is equally likely to be among the five
    best of them all.
    """

    def expected(share: float) -> float:
        hidden = share * n_pruned
        return N_BEST * hidden / (N_BEST + hidden)

    return Interval(expected(rate.estimate), expected(rate.low), expected(rate.high))


def _verdict(n_pruned: int, n_complete: int, lost: Interval | None) -> str:
    if not n_pruned:
        return "none"
    if n_complete < MIN_COMPLETE or lost is None:
        return "unknown"
    if lost.low >= HARMFUL:
        return "harmful"
    return "fair" if lost.high < FAIR else "unknown"
