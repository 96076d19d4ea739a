"""The winner of a study: the best config, confirmed by its seed repeats. Every place names it.

One rule decides. A config counts with the mean dev loss of its seed repeats, because its own loss
was selected for being low. Of the configs within one standard error of the lowest mean, the
smallest model wins (the one-standard-error rule, Breiman et al. 1984). A trial without repeats wins
only if its own loss is so low that noise does not explain it, or if no config has repeats; it is
then the unconfirmed winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from studies.harness.store.trials import dev_loss, ranked
from studies.harness.store.winner.noise import Group, Noise, measure_noise


@dataclass(frozen=True)
class Winner:
    """The best config of a study.

    Attributes:
        trial: the trial that found it.
        own: dev loss of this trial, in nats per character.
        group: its seed repeats; None if the winner is unconfirmed.
        tied: numbers of the other repeated trials whose means do not differ significantly from the
            lowest one.
        lowest: the trial with the lowest dev loss of its own, often by luck.
        lowest_repeated: whether it has seed repeats.
        is_smaller: whether another config has a lower mean, but a larger model.
    """

    trial: FrozenTrial
    own: float
    lowest: FrozenTrial
    lowest_repeated: bool = False
    group: Group | None = None
    tied: tuple[int, ...] = ()
    is_smaller: bool = False

    @property
    def number(self) -> int:
        """Number of the trial."""
        return self.trial.number

    @property
    def loss(self) -> float:
        """Confirmed mean dev loss, or the trial's own one if it is unconfirmed."""
        return self.own if self.group is None else self.group.mean

    @property
    def loss_text(self) -> str:
        """The loss as text, such as "2.0897 ± 0.0012" or "2.0851"."""
        if self.group is None:
            return f"{self.own:.4f}"
        return f"{self.group.mean:.4f} ± {self.group.margin:.4f}"


def find_winner(trials: Sequence[FrozenTrial]) -> Winner | None:
    """Return the winner, or None if no trial has a dev loss.

    Args:
        trials: all trials of a study, by number.
    """
    return choose_winner(trials, measure_noise(trials))


def choose_winner(trials: Sequence[FrozenTrial], noise: Noise | None) -> Winner | None:
    """Return the winner of trials whose noise is known; see `find_winner`.

    Args:
        trials: all trials of a study, by number.
        noise: from `measure_noise`.
    """
    lowest = next(iter(ranked(trials)), None)
    if lowest is None:
        return None
    own = dev_loss(lowest)
    assert own is not None
    if noise is None or not math.isfinite(noise.groups[0].mean):
        return Winner(lowest, own, lowest)

    lowest_mean = noise.groups[0]
    limit = lowest_mean.mean + noise.sd / math.sqrt(lowest_mean.n)
    close = [group for group in noise.groups if group.mean <= limit]
    best = min(close, key=lambda group: (group.n_params, group.mean))
    is_repeated = lowest.number in {group.trial for group in noise.groups}
    if not is_repeated and own < best.mean - noise.t_sd * math.sqrt(1 + 1 / best.n):
        return Winner(lowest, own, lowest)
    tied = tuple(g.trial for g in noise.groups if g is not best and not g.differs)
    return Winner(
        trial=trials[best.trial],
        own=best.own,
        lowest=lowest,
        lowest_repeated=is_repeated,
        group=best,
        tied=tied,
        is_smaller=best is not lowest_mean,
    )


def describe(winner: Winner) -> list[str]:
    """Return the sentences about the winner that every output shows."""
    group = winner.group
    if group is None:
        return [
            f"Winner: trial {winner.number}. Selected on one seed: {winner.own:.4f}; not "
            "confirmed, because it has no seed repeats."
        ]
    sentences = [
        f"Winner: trial {winner.number}. Selected on one seed: {winner.own:.4f}; confirmed: "
        f"{winner.loss_text} (95%, mean of {group.n} seed repeats)."
    ]
    if winner.tied:
        names = ", ".join(str(number) for number in winner.tied)
        plural = "s" if len(winner.tied) > 1 else ""
        sentences.append(
            f"Trial{plural} {names} cannot be distinguished from it (95%) by the seed repeats."
        )
    if winner.is_smaller:
        sentences.append(
            "Its mean is within one standard error of the lowest one, and its model is smaller."
        )
    lowest = winner.lowest
    if lowest.number not in (winner.number, *winner.tied):
        why = "it has no seed repeats"
        if winner.lowest_repeated:
            why = "its seed repeats do not confirm it"
        sentences.append(
            f"Trial {lowest.number} has the lowest loss of one seed, {dev_loss(lowest):.4f}, but "
            f"{why}."
        )
    return sentences
