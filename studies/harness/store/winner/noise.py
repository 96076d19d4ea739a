"""Noise between seeds: the seed repeats of each config, their means, and what the seed changes."""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import dev_loss, has_diverged

CONFIDENCE = 0.95
MIN_REPEATS = 2  # complete seed repeats that a config needs to be compared with others


@dataclass(frozen=True)
class Group:
    """The seed repeats of one trial. All losses are in nats per character.

    Attributes:
        trial: number of the repeated trial.
        own: its own dev loss. It is not part of the mean: the trial was chosen for a low loss, so
            its own loss is partly luck.
        losses: dev losses of the complete repeats.
        n_params: number of parameters of the model.
        n_diverged: repeats that diverged.
        margin: half-width of the 95% interval of the mean.
        differs: whether the mean is significantly (95%) above the lowest mean.
    """

    trial: int
    own: float
    losses: tuple[float, ...]
    n_params: float
    n_diverged: int = 0
    margin: float = math.nan
    differs: bool = False

    @property
    def n(self) -> int:
        """Number of complete repeats."""
        return len(self.losses)

    @property
    def mean(self) -> float:
        """Mean dev loss of the repeats; infinite if one diverged, because the config may fail."""
        return math.inf if self.n_diverged else statistics.fmean(self.losses)

    @property
    def sd(self) -> float:
        """Standard deviation of the repeats' dev losses."""
        return statistics.stdev(self.losses)


@dataclass(frozen=True)
class Noise:
    """How much the seed alone changes the dev loss of a study's best configs.

    Attributes:
        groups: the configs with at least MIN_REPEATS complete repeats, lowest mean first.
        sd: standard deviation of the dev loss between seeds of one config, in nats per character,
            pooled over the groups.
        freedom: degrees of freedom of `sd`.
    """

    groups: tuple[Group, ...]
    sd: float
    freedom: int

    @property
    def t_sd(self) -> float:
        """Student's t, 95% and two-sided, times `sd`."""
        return t_quantile(self.freedom) * self.sd

    @property
    def min_difference(self) -> float:
        """Smallest significant difference (95%) between the dev losses of two single trials."""
        return self.t_sd * math.sqrt(2)

    @property
    def selection_bias(self) -> float:
        """Mean of (mean - own): how far the own loss of a chosen trial is below its mean."""
        finite = [group for group in self.groups if math.isfinite(group.mean)]
        return statistics.fmean(group.mean - group.own for group in finite) if finite else math.nan


def measure_noise(trials: Sequence[FrozenTrial]) -> Noise | None:
    """Return the noise between seeds, or None if no trial has MIN_REPEATS complete repeats.

    Args:
        trials: all trials of a study, by number.
    """
    losses: dict[int, list[float]] = defaultdict(list)
    diverged: dict[int, int] = defaultdict(int)
    for trial in trials:
        repeated = trial.user_attrs.get("repeat_of")
        loss = dev_loss(trial)
        if repeated is None:
            continue
        if has_diverged(trial):
            diverged[repeated] += 1
        elif trial.state == TrialState.COMPLETE and loss is not None:
            losses[repeated].append(loss)

    groups = [
        _group(trials[number], tuple(found), diverged[number])
        for number, found in losses.items()
        if len(found) >= MIN_REPEATS
    ]
    freedom = sum(group.n - 1 for group in groups)
    if freedom == 0:
        return None
    squares = sum((group.n - 1) * group.sd**2 for group in groups)
    sd = math.sqrt(squares / freedom)
    return Noise(_compare(groups, t_quantile(freedom) * sd), sd, freedom)


def _group(trial: FrozenTrial, losses: tuple[float, ...], n_diverged: int) -> Group:
    metrics = trial.user_attrs.get("summary", {}).get("metrics", {})
    own = dev_loss(trial)
    return Group(
        trial=trial.number,
        own=math.nan if own is None else own,
        losses=losses,
        n_params=metrics.get("n_params", math.inf),
        n_diverged=n_diverged,
    )


def _compare(groups: Sequence[Group], t_sd: float) -> tuple[Group, ...]:
    """Sort the groups by their means, and compare each with the lowest one."""
    ordered = sorted(groups, key=lambda group: (group.mean, group.trial))
    best = ordered[0]
    compared = []
    for group in ordered:
        margin = t_sd * math.sqrt(1 / group.n + 1 / best.n)
        differs = group is not best and group.mean > best.mean + margin
        compared.append(replace(group, margin=t_sd / math.sqrt(group.n), differs=differs))
    return tuple(compared)


def t_quantile(freedom: int) -> float:
    """Return Student's t at the upper end of the two-sided 95% interval."""
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, 0.5 + CONFIDENCE / 2))
