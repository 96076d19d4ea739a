"""Verdict on the step budget: did the trials train long enough?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd


LATE = 0.75  # share of the steps that begins the last quarter
EARLY = 0.10  # share of the steps that ends the first tenth
FEWEST_ENDED = 8  # complete trials below which nothing is foretold from them


@dataclass(frozen=True)
class Budget:
    """Whether the trials had enough training steps.

    Attributes:
        verdict: "lengthen", "shorten", "enough", or "unknown" for too few trials.
        late: share of the best complete trials whose best step falls into the last quarter.
        early: the same for the first tenth.
        late_gain: by how much their best dev loss fell in the last quarter, median.
        sentence: for a reader.
    """

    verdict: str
    late: float
    early: float
    late_gain: float
    sentence: str


def judge_budget(
    trials: pd.DataFrame, points: pd.DataFrame, max_steps: int, noise_sd: float | None = None
) -> Budget:
    """Judge the step budget by where the best step of the better half of the complete trials falls.

    With a schedule that ends on a small lr nearly every best step is a late one; so where the noise between seeds is
    known, a last quarter that brought less than it does not ask for more steps.

    Args:
        trials: with columns trial, state, dev_loss, best_step.
        points: every evaluation: trial, step, dev_loss.
        noise_sd: standard deviation of the dev loss between seeds.
    """
    ended = trials[trials.state == "COMPLETE"].sort_values("dev_loss")
    if len(ended) < 4:
        sentence = f"{len(ended)} complete trials are too few to judge the number of steps."
        return Budget("unknown", math.nan, math.nan, math.nan, sentence)
    better = ended[: max(4, len(ended) // 2)]
    at = better.best_step.astype(float) / max_steps
    late, early = float((at > LATE).mean()), float((at <= EARLY).mean())
    until = points[points.trial.isin(better.trial) & (points.step <= LATE * max_steps)]
    gains = until.groupby("trial").dev_loss.min() - better.set_index("trial").dev_loss
    gain = float(gains.median())
    who = f"of the {len(better)} best complete trials"
    if early > 0.5:
        why = f"{early:.0%} {who} were best in the first tenth of {max_steps:,} steps and got worse after it"
        return Budget(
            "shorten",
            late,
            early,
            gain,
            f"{why}: take fewer steps, or regularise (dropout, weight_decay).",
        )
    if late <= 0.5:
        why = f"{late:.0%} {who} were best in the last quarter of {max_steps:,} steps"
        return Budget("enough", late, early, gain, f"Only {why}: the steps are enough.")
    why = f"{late:.0%} {who} were best in the last quarter of {max_steps:,} steps, which brought {gain:.4f}"
    if noise_sd is not None and gain <= noise_sd:
        return Budget(
            "enough",
            late,
            early,
            gain,
            f"{why}, less than the noise between seeds: the steps are enough.",
        )
    return Budget(
        "lengthen", late, early, gain, f"{why}: train longer, {2 * max_steps:,} steps for example."
    )
