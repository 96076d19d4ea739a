"""The winner of a study: the best config, confirmed by its seed repeats. Every place names it.

One rule decides. A config counts with the mean dev loss of its seed repeats, because its own loss
was selected for being low. The lowest mean wins. Configs whose means do not differ significantly
(95%) are tied with it; they are named, with the smallest model of them. A trial without repeats
wins only if its own loss is so low that noise does not explain it, or if no config has repeats; it
is then the unconfirmed winner.
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
        tied: the other configs whose means do not differ significantly from the winner's.
        lowest: the trial with the lowest dev loss of its own, often by luck.
        lowest_repeated: whether it has seed repeats.
    """

    trial: FrozenTrial
    own: float
    lowest: FrozenTrial
    lowest_repeated: bool = False
    group: Group | None = None
    tied: tuple[Group, ...] = ()

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

    best = noise.groups[0]
    is_repeated = lowest.number in {group.trial for group in noise.groups}
    if not is_repeated and own < best.mean - noise.t_sd * math.sqrt(1 + 1 / best.n):
        return Winner(lowest, own, lowest)
    tied = tuple(group for group in noise.groups[1:] if not group.differs)
    return Winner(trials[best.trial], best.own, lowest, is_repeated, best, tied)


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
        sentences.append(_describe_ties(winner.tied, group))
    lowest = winner.lowest
    if lowest.number not in (winner.number, *(tied.trial for tied in winner.tied)):
        why = "it has no seed repeats"
        if winner.lowest_repeated:
            why = "its seed repeats do not confirm it"
        sentences.append(
            f"Trial {lowest.number} has the lowest loss of one seed, {dev_loss(lowest):.4f}, but "
            f"{why}."
        )
    return sentences


def _describe_ties(tied: Sequence[Group], best: Group) -> str:
    numbers = ", ".join(str(group.trial) for group in tied)
    sentence = f"Tied with it (95%): trial{'s' if len(tied) > 1 else ''} {numbers}"
    smallest = min(tied, key=lambda group: group.n_params)
    if smallest.n_params < best.n_params:
        sentence += (
            f"; the smallest model of them is trial {smallest.trial}, with "
            f"{smallest.n_params:,.0f} parameters instead of {best.n_params:,.0f}"
        )
    return f"{sentence}."
