"""How much of a difference between trials is chance: what the seed alone changes, and which trials it leaves tied."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pandas as pd

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Noise:
    """The noise floor of a study, from the seed repeats of some of its trials.

    Attributes:
        groups: one row a repeated trial, in the order of the repeats' mean: trial, own (its own dev loss), repeats
            (how many), mean and sd of their dev losses, margin (half-width of the mean's 95% interval), behind (mean -
            lowest mean) and differs (whether that exceeds the noise).
        sd: of the dev loss between seeds of one config, pooled over the groups; its own loss is left out, since it was
            chosen for being low.
        freedom: degrees of freedom of `sd`.
        smallest: two single trials differ at 95% only when their dev losses lie this far apart.
        curse: mean over the groups of mean - own: by how much a chosen trial's own loss flatters it.
    """

    groups: pd.DataFrame
    sd: float
    freedom: int
    smallest: float
    curse: float

    @property
    def best(self) -> pd.Series:
        """The group of the lowest mean."""
        return self.groups.iloc[0]


def measure_noise(trials: pd.DataFrame, repeats: pd.DataFrame) -> Noise | None:
    """The noise floor, or None when no trial has two measured repeats.

    Args:
        trials: the study's trials, with columns trial and dev_loss.
        repeats: its seed repeats, with columns repeat_of, state and dev_loss; those that did not end are left out.
    """
    import pandas as pd

    ended = repeats[(repeats.state == "COMPLETE") & repeats.dev_loss.notna()]
    own = trials.set_index("trial").dev_loss
    rows, squares, freedom = [], 0.0, 0
    for number, group in ended.groupby("repeat_of"):
        losses = group.dev_loss.to_numpy()
        squares += float(((losses - losses.mean()) ** 2).sum())
        freedom += len(losses) - 1
        sd = float(losses.std(ddof=1)) if len(losses) > 1 else math.nan
        row: dict[str, Any] = {
            "trial": int(number),  # type: ignore
            "own": float(own.get(number, math.nan)),
            "repeats": len(losses),
        }
        rows.append({**row, "mean": float(losses.mean()), "sd": sd})
    if freedom == 0:
        return None
    sd, t = math.sqrt(squares / freedom), t_quantile(freedom)
    groups = pd.DataFrame(rows).sort_values(["mean", "trial"], ignore_index=True)
    groups["margin"] = t * sd / np.sqrt(groups.repeats)
    groups["behind"] = groups["mean"] - groups["mean"].iloc[0]
    groups["differs"] = groups.behind > t * sd * np.sqrt(
        1 / groups.repeats + 1 / groups.repeats.iloc[0]
    )
    groups.loc[0, "differs"] = False
    return Noise(
        groups, sd, freedom, t * sd * math.sqrt(2), float((groups["mean"] - groups.own).mean())
    )


def tied_trials(trials: pd.DataFrame, noise: Noise | None) -> pd.DataFrame:
    """The trials that cannot be told from the best by their own dev loss, the best among them; fewest parameters first.

    Without a noise floor nothing is known to be tied, and the best stands alone. Pruned trials are no candidates: more
    training might have made them better than they are.
    """
    ended = trials[(trials.state == "COMPLETE") & trials.dev_loss.notna()].sort_values(
        ["dev_loss", "trial"]
    )
    if noise is None or not len(ended):
        return ended[:1]
    tied = ended[ended.dev_loss - ended.dev_loss.min() <= noise.smallest]
    if len(noise.groups):  # what repeats tell stands above what a single training tells
        worse = set(noise.groups.trial[noise.groups.differs])
        tied = tied[~tied.trial.isin(worse)]
    return tied.sort_values(["n_params", "dev_loss"], ignore_index=True)


def t_quantile(freedom: int) -> float:
    """Student's t at the upper end of the two-sided 95% interval."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
