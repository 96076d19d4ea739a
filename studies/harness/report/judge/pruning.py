"""Whether early losses foretell late ones, and so whether the pruner stopped the right trials."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from studies.harness.report.judge.budget import FEWEST_ENDED
from studies.harness.report.judge.ranges import N_BEST

if TYPE_CHECKING:
    import pandas as pd

SHARES = (0.25, 0.5)  # of the steps, from which the end is foretold


@dataclass(frozen=True)
class RankCorrelation:
    """How well the dev loss at a step foretells that at the end, over the complete trials.

    Attributes:
        share: of the steps, as asked for.
        step: the last evaluated step up to there.
        correlation: Spearman's rank correlation; nan where it is not defined.
        n: complete trials.
    """

    share: float
    step: int
    correlation: float
    n: int


@dataclass(frozen=True)
class Pruning:
    """What became of pruning.

    Attributes:
        pruned: trials that the pruner stopped.
        wrongly: how many of them would probably have ended among the best five; nan where nothing foretells it.
        worst: numbers of those more likely to than not.
        sentence: for a reader.
    """

    pruned: int
    wrongly: float
    worst: list[int]
    sentence: str


def predict_ends(
    trials: pd.DataFrame, points: pd.DataFrame, max_steps: int
) -> list[RankCorrelation]:
    """Rank correlations of the dev loss at a quarter and at half of the steps with the trial's best.

    The trials that were pruned are missing, and with them the easy part of the ranking: a low correlation says that
    the pruner cannot tell the good trials apart, not that it stops them.
    """
    ended = trials[trials.state == "COMPLETE"]
    found = []
    for share in SHARES:
        step, losses = losses_at(points, share * max_steps)
        both = (
            ended.set_index("trial")
            .dev_loss.to_frame("end")
            .join(losses.rename("then"), how="inner")
        )
        correlation = (
            spearman(both.then.to_numpy(), both.end.to_numpy()) if len(both) >= 3 else math.nan
        )
        found.append(RankCorrelation(share, step, correlation, len(both)))
    return found


def losses_at(points: pd.DataFrame, limit: float) -> tuple[int, pd.Series]:
    """The last evaluated step up to a limit, and the dev loss there by trial."""
    until = points[points.step <= limit]
    step = int(until.step.max()) if len(until) else 0
    return step, until[until.step == step].set_index("trial").dev_loss


def spearman(a: np.ndarray, b: np.ndarray) -> float:
    """Spearman's rank correlation, equal values sharing their mean rank; nan when one side is constant."""
    import pandas as pd

    x, y = (pd.Series(values).rank().to_numpy() for values in (a, b))
    x, y = x - x.mean(), y - y.mean()
    scale = math.sqrt(float(x @ x) * float(y @ y))
    return float(x @ y) / scale if scale else math.nan


def judge_pruning(trials: pd.DataFrame, points: pd.DataFrame) -> Pruning:
    """How many pruned trials would have ended among the best five.

    For each of them the complete trials tell how the dev loss at its last step relates to the final one (least squares,
    with the scatter about the line), and so how likely its end would have been below the fifth best.
    """
    ended = trials[trials.state == "COMPLETE"].sort_values("dev_loss")
    stopped = trials[(trials.state == "PRUNED") & ~trials.reason.str.startswith("diverged")]
    if not len(stopped):
        return Pruning(0, 0.0, [], "No trial was pruned.")
    if len(ended) < FEWEST_ENDED:
        sentence = f"{len(ended)} complete trials are too few to tell how many of {len(stopped)} were pruned wrongly."
        return Pruning(len(stopped), math.nan, [], sentence)
    target = float(ended.dev_loss.iloc[N_BEST - 1])
    final = ended.set_index("trial").dev_loss
    last = points[points.trial.isin(stopped.trial)].groupby("trial").tail(1)
    chances: dict[int, float] = {}
    for step, group in last.groupby("step"):
        then = (
            points[(points.step == step) & points.trial.isin(ended.trial)]
            .set_index("trial")
            .dev_loss
        )
        chances |= dict(
            zip(group.trial, _chances(then, final[then.index], group.dev_loss, target), strict=True)
        )
    wrongly, worst = (
        float(sum(chances.values())),
        sorted(n for n, chance in chances.items() if chance > 0.5),
    )
    share = wrongly / len(stopped)
    judgement = (
        "the pruner is fair" if share < 0.05 else "the pruner is too eager: let it wait longer"
    )
    count = f"About {wrongly:.0f}" if wrongly >= 1 else "Fewer than one"
    sentence = f"{count} of {len(stopped)} pruned trials would have ended among the best {N_BEST}; {judgement}."
    return Pruning(len(stopped), wrongly, worst, sentence)


def _chances(then: pd.Series, end: pd.Series, stopped: pd.Series, target: float) -> np.ndarray:
    """How likely each stopped loss would have ended below the target."""
    x, y, at = then.to_numpy(), end.to_numpy(), stopped.to_numpy()
    centred = x - x.mean()
    slope = float(centred @ y / (centred @ centred)) if centred.any() else 0.0
    scatter = math.sqrt(float(((y - y.mean() - slope * centred) ** 2).sum()) / max(1, len(x) - 2))
    foretold = y.mean() + slope * (at - x.mean())
    if scatter == 0:
        return (foretold < target).astype(float)
    return np.array([0.5 * (1 + math.erf((target - f) / scatter / math.sqrt(2))) for f in foretold])
