"""Verdict on the pruner: do early losses predict the final ones, and were good trials pruned?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.ranges import N_BEST

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.25, 0.5)  # of the steps, at which the early dev loss is taken
MIN_COMPLETE = 8  # complete trials needed to predict where pruned ones would have ended
FAIR = 0.05  # share of wrongly pruned trials below which the pruner is fair


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
class Pruning:
    """Whether the pruner stopped good trials.

    Attributes:
        verdict: "fair", "too eager", "none" if no trial was pruned, or "unknown".
        n_pruned: number of trials that the pruner stopped.
        n_wrong: expected number of them that would have ended among the best five; nan if unknown.
        likely_wrong: numbers of the trials for which this is more likely than not.
        sentence: the verdict for a reader.
    """

    verdict: str
    n_pruned: int
    n_wrong: float
    likely_wrong: list[int]
    sentence: str


def rank_correlations(
    trials: pd.DataFrame, points: pd.DataFrame, max_steps: int
) -> list[RankCorrelation]:
    """Correlate the dev loss at a quarter and at half of the steps with the trial's best.

    Only complete trials count. The pruned ones were mostly easy to rank, so a low correlation says
    that the pruner cannot rank the good trials, not that it stopped them.

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


def judge_pruning(trials: pd.DataFrame, points: pd.DataFrame) -> Pruning:
    """Estimate how many pruned trials would have ended among the best five.

    For each step at which a trial was pruned, a least-squares line over the complete trials
    predicts the final dev loss from the one at that step. Its residuals give the probability that
    the trial would have ended below the fifth best.

    Args:
        trials: columns trial, state, reason, dev_loss.
        points: one row for each evaluation, ordered by time: trial, step, dev_loss.
    """
    complete = trials[trials.state == "COMPLETE"].sort_values("dev_loss")
    pruned = trials[(trials.state == "PRUNED") & ~trials.reason.str.startswith("diverged")]
    if not len(pruned):
        return Pruning("none", 0, 0.0, [], "No trial was pruned.")
    if len(complete) < MIN_COMPLETE:
        sentence = (
            f"The pruner cannot be judged from {len(complete)} complete trials; at least "
            f"{MIN_COMPLETE} are needed to predict where the {len(pruned)} pruned ones would end."
        )
        return Pruning("unknown", len(pruned), math.nan, [], sentence)

    target = float(complete.dev_loss.iloc[N_BEST - 1])
    final = complete.set_index("trial").dev_loss
    last_points = points[points.trial.isin(pruned.trial)].groupby("trial").tail(1)
    chances: dict[int, float] = {}
    for step, group in last_points.groupby("step"):
        early = points[(points.step == step) & points.trial.isin(complete.trial)]
        early_losses = early.set_index("trial").dev_loss
        chance = _chance_below(early_losses, final[early_losses.index], group.dev_loss, target)
        chances |= dict(zip(group.trial, chance, strict=True))

    n_wrong = float(sum(chances.values()))
    likely_wrong = sorted(number for number, chance in chances.items() if chance > 0.5)
    verdict = "fair" if n_wrong / len(pruned) < FAIR else "too eager"
    advice = "" if verdict == "fair" else "; prune later, or search with --no-prune"
    count = f"About {n_wrong:.0f}" if n_wrong >= 1 else "Fewer than one"
    sentence = (
        f"{count} of {len(pruned)} pruned trials would have ended among the best {N_BEST} "
        f"(estimated from {len(complete)} complete trials): the pruner is {verdict}{advice}."
    )
    return Pruning(verdict, len(pruned), n_wrong, likely_wrong, sentence)


def _chance_below(
    early: pd.Series, final: pd.Series, pruned: pd.Series, target: float
) -> np.ndarray:
    """Return the probability that each pruned trial would have ended below the target.

    Args:
        early, final: dev losses of the complete trials, at the step and at the end.
        pruned: dev losses of the pruned trials at the step.
    """
    x = early.to_numpy()
    y = final.to_numpy()
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred)) if centred.any() else 0.0
    residuals = y - y.mean() - slope * centred
    sd = math.sqrt(float((residuals**2).sum()) / max(1, len(x) - 2))
    predicted = y.mean() + slope * (pruned.to_numpy() - x.mean())
    if sd == 0:
        return (predicted < target).astype(float)
    z = (target - predicted) / sd / math.sqrt(2)
    return np.array([0.5 * (1 + math.erf(value)) for value in z])
