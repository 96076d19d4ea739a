"""Verdict on the step budget: did the trials train long enough?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


LATE = 0.75  # share of the steps at which the last quarter begins
EARLY = 0.10  # share of the steps at which the first tenth ends
MIN_COMPLETE = 4  # complete trials needed for a verdict


@dataclass(frozen=True)
class Budget:
    """Whether the trials had enough training steps.

    Attributes:
        verdict: "lengthen", "shorten", "sufficient", or "unknown" for too few trials.
        late: share of the best complete trials whose best step is in the last quarter.
        early: share of them whose best step is in the first tenth.
        late_gain: decrease of their best dev loss in the last quarter, in nats per character;
            median over the trials.
        sentence: the verdict for a reader.
    """

    verdict: str
    late: float
    early: float
    late_gain: float
    sentence: str


def judge_budget(
    trials: pd.DataFrame, points: pd.DataFrame, max_steps: int, noise_sd: float | None = None
) -> Budget:
    """Judge the step budget by the best step of the better half of the complete trials.

    With a schedule that ends at a small lr, nearly every best step is late. So more steps are
    advised only if the gain of the last quarter exceeds the noise between seeds, where it is known.

    Args:
        trials: columns trial, state, dev_loss, best_step.
        points: one row for each evaluation: trial, step, dev_loss.
        max_steps: steps of each trial.
        noise_sd: standard deviation of the dev loss between seeds; None if unknown.
    """
    complete = trials[trials.state == "COMPLETE"].sort_values("dev_loss")
    if len(complete) < MIN_COMPLETE:
        return _unknown(len(complete))
    best = complete[: max(MIN_COMPLETE, len(complete) // 2)]
    at = best.best_step.astype(float) / max_steps
    late = float((at > LATE).mean())
    early = float((at <= EARLY).mean())
    before = points[points.trial.isin(best.trial) & (points.step <= LATE * max_steps)]
    gains = before.groupby("trial").dev_loss.min() - best.set_index("trial").dev_loss
    gain = float(gains.median())

    who = f"of the {len(best):,} best complete trials had their lowest dev loss in the"
    where = f"{(at > LATE).sum():,} {who} last quarter of {max_steps:,} steps"
    if early > 0.5:
        verdict = "shorten"
        sentence = (
            f"{(at <= EARLY).sum():,} {who} first tenth of {max_steps:,} steps, and it rose "
            "afterwards: use fewer steps, or regularise (dropout, weight_decay)."
        )
    elif late <= 0.5:
        verdict = "sufficient"
        sentence = f"Only {where}: the number of steps is sufficient."
    elif noise_sd is not None and gain <= noise_sd:
        verdict = "sufficient"
        sentence = (
            f"{where}, but that quarter lowered it by only {gain:.4f} nats (median), within the "
            f"noise between seeds (sd {noise_sd:.4f}): the number of steps is sufficient."
        )
    else:
        verdict = "lengthen"
        sentence = (
            f"{where}, which lowered it by {gain:.4f} nats (median): train longer, for example "
            f"{2 * max_steps:,} steps."
        )
    return Budget(verdict, late, early, gain, sentence)


def _unknown(n_complete: int) -> Budget:
    sentence = (
        f"The number of steps cannot be judged from {n_complete} complete trials; at least "
        f"{MIN_COMPLETE} are needed."
    )
    return Budget("unknown", math.nan, math.nan, math.nan, sentence)
