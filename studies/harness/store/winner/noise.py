"""Noise between seeds: the seed repeats of each config, their means, and how much the seed changes.

The lowest of several means is itself a little low by luck, because it is chosen among them.
"""

from __future__ import annotations

import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, replace

from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import dev_loss, has_diverged
from studies.harness.store.winner import CONFIRMED

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
        difference_margin: half-width of the 95% interval of (mean - lowest mean).
        differs: whether the mean is significantly (95%) above the lowest mean.
    """

    trial: int
    own: float
    losses: tuple[float, ...]
    n_params: float
    n_diverged: int = 0
    margin: float = math.nan
    difference_margin: float = math.nan
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

    @property
    def mean_text(self) -> str:
        """The mean with its margin, such as "2.0897 ± 0.0012", or how many repeats diverged."""
        if self.n_diverged:
            return f"{self.n_diverged} diverged"
        return f"{self.mean:.4f} ± {self.margin:.4f}"


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

    @property
    def selection_bias_margin(self) -> float:
        """Half of the 95% interval of `selection_bias`, from the noise of means and own losses."""
        finite = [group for group in self.groups if math.isfinite(group.mean)]
        if not finite:
            return math.nan
        variance = sum(1 + 1 / group.n for group in finite) / len(finite) ** 2
        return t_quantile(self.freedom) * self.sd * math.sqrt(variance)


def describe_bias(found: Noise) -> str:
    """Return the sentence about the difference between means and the trials' own losses."""
    bias, margin = found.selection_bias, found.selection_bias_margin
    if math.isnan(bias):
        return "No repeated trial has a loss of its own seed."
    difference = (
        f"On average, the means of the repeats are {abs(bias):.4f} ± {margin:.4f} (95%) "
        f"{'above' if bias > 0 else 'below'} the trials' own losses"
    )
    if bias > margin:
        return (
            f"{difference}. The likely reason is selection bias: a trial is selected for a low "
            "loss, which is partly luck."
        )
    return f"{difference}, so no selection bias can be seen."


@dataclass
class Repeats:
    """Numbers of seed repeats of a trial that are complete, and that diverged."""

    complete: int = 0
    diverged: int = 0


def count_repeats(trials: Sequence[FrozenTrial]) -> defaultdict[int, Repeats]:
    """Return the finished seed repeats by the number of the repeated trial."""
    found: defaultdict[int, Repeats] = defaultdict(Repeats)
    for trial in trials:
        number = trial.user_attrs.get("repeat_of")
        if number is None:
            continue
        if has_diverged(trial):
            found[number].diverged += 1
        elif trial.state == TrialState.COMPLETE:
            found[number].complete += 1
    return found


def measure_noise(trials: Sequence[FrozenTrial]) -> Noise | None:
    """Return the noise between seeds, or None if no trial has MIN_REPEATS complete repeats.

    Args:
        trials: all trials of a study, by number.
    """
    losses: dict[int, list[float]] = defaultdict(list)
    for trial in trials:
        repeated = trial.user_attrs.get("repeat_of")
        loss = dev_loss(trial)
        if repeated is not None and trial.state == TrialState.COMPLETE and loss is not None:
            losses[repeated].append(loss)
    counts = count_repeats(trials)

    groups = [
        _group(trials[number], tuple(found), counts[number].diverged)
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
        difference_margin = t_sd * math.sqrt(1 / group.n + 1 / best.n)
        compared.append(
            replace(
                group,
                margin=t_sd / math.sqrt(group.n),
                difference_margin=difference_margin,
                differs=group is not best and group.mean > best.mean + difference_margin,
            )
        )
    return tuple(compared)


def confirmed_means(group: Group | None) -> dict[str, float]:
    """Return the values of CONFIRMED; empty without a mean, or if a repeat diverged."""
    if group is None or group.n_diverged:
        return {}
    return dict(zip(CONFIRMED, (group.mean, group.margin, group.n), strict=True))


def t_quantile(freedom: int, n_compared: int = 1) -> float:
    """Return Student's t at the upper end of the two-sided 95% interval.

    Args:
        freedom: degrees of freedom.
        n_compared: number of comparisons of which not one should be wrong (Bonferroni).
    """
    from scipy.special import stdtrit  # scipy.stats takes half a second to import

    return float(stdtrit(freedom, 1 - (1 - CONFIDENCE) / 2 / n_compared))
