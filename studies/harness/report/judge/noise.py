"""Noise between seeds: how much the seed alone changes the dev loss, and which trials are tied."""

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
    """Noise floor of a study, measured by the seed repeats of some trials.

    All losses are in nats per character.

    Attributes:
        groups: one row for each repeated trial, lowest mean first: trial, own (the trial's own dev
            loss), repeats (number of seed repeats), mean and sd of their dev losses, margin
            (half-width of the 95% interval of the mean), behind (mean - lowest mean) and differs
            (whether `behind` exceeds the noise).
        sd: standard deviation of the dev loss between seeds of one config, pooled over the groups.
            The trials' own losses are left out: they were selected for being low.
        freedom: degrees of freedom of `sd`.
        min_difference: smallest significant difference (95%) between the dev losses of two single
            trials.
        selection_bias: mean of (mean - own) over the groups: how far a selected trial's own loss is
            below its expected loss (the winner's curse).
    """

    groups: pd.DataFrame
    sd: float
    freedom: int
    min_difference: float
    selection_bias: float

    @property
    def best(self) -> pd.Series:
        """The group with the lowest mean."""
        return self.groups.iloc[0]


def measure_noise(trials: pd.DataFrame, repeats: pd.DataFrame) -> Noise | None:
    """Return the noise floor, or None if no trial has two complete repeats.

    Args:
        trials: trials of the study, columns trial and dev_loss.
        repeats: its seed repeats, columns repeat_of, state and dev_loss; only complete ones count.
    """
    complete = repeats[(repeats.state == "COMPLETE") & repeats.dev_loss.notna()]
    own = trials.set_index("trial").dev_loss
    rows = []
    squares = 0.0
    freedom = 0
    for number, group in complete.groupby("repeat_of"):
        losses = group.dev_loss.to_numpy()
        squares += float(((losses - losses.mean()) ** 2).sum())
        freedom += len(losses) - 1
        row: dict[str, Any] = {
            "trial": int(number),  # type: ignore
            "own": float(own.get(number, math.nan)),
            "repeats": len(losses),
            "mean": float(losses.mean()),
            "sd": float(losses.std(ddof=1)) if len(losses) > 1 else math.nan,
        }
        rows.append(row)
    if freedom == 0:
        return None
    sd = math.sqrt(squares / freedom)
    t = t_quantile(freedom)
    groups = _compare_groups(rows, t * sd)
    selection_bias = float((groups["mean"] - groups.own).mean())
    return Noise(groups, sd, freedom, t * sd * math.sqrt(2), selection_bias)


def _compare_groups(rows: list[dict[str, Any]], t_sd: float) -> pd.DataFrame:
    """Sort the groups by their mean, and compare each with the best.

    Args:
        rows: see `Noise.groups`.
        t_sd: Student's t times the pooled standard deviation.
    """
    import pandas as pd

    groups = pd.DataFrame(rows).sort_values(["mean", "trial"], ignore_index=True)
    groups["margin"] = t_sd / np.sqrt(groups.repeats)
    groups["behind"] = groups["mean"] - groups["mean"].iloc[0]
    margin = t_sd * np.sqrt(1 / groups.repeats + 1 / groups.repeats.iloc[0])
    groups["differs"] = groups.behind > margin
    groups.loc[0, "differs"] = False
    return groups


def tied_trials(trials: pd.DataFrame, noise: Noise | None) -> pd.DataFrame:
    """Return the complete trials that do not differ significantly from the best, and the best.

    Those with the fewest parameters come first. Without a noise floor only the best is returned.
    Pruned trials are excluded: with more training they might be better.

    Args:
        trials: columns trial, state, dev_loss and n_params.
        noise: from `measure_noise`.
    """
    complete = trials[(trials.state == "COMPLETE") & trials.dev_loss.notna()]
    complete = complete.sort_values(["dev_loss", "trial"])
    if noise is None or not len(complete):
        return complete[:1]
    tied = complete[complete.dev_loss - complete.dev_loss.min() <= noise.min_difference]
    # The mean over seed repeats outweighs a trial's own loss.
    worse = set(noise.groups.trial[noise.groups.differs])
    tied = tied[~tied.trial.isin(worse)]
    return tied.sort_values(["n_params", "dev_loss"], ignore_index=True)


def t_quantile(freedom: int) -> float:
    """Return Student's t at the upper end of the two-sided 95% interval."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
