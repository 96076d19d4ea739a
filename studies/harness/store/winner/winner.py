"""The winner of a study: the best config, confirmed by its seed repeats. Every place names it.

One rule decides. A config counts with the mean dev loss of its seed repeats, because its own loss
was selected for being low. The lowest mean wins. Configs whose means do not differ significantly
(95%) are tied with it; they are named, with the smallest model of them. A config that diverges with
another seed does not win. A trial without repeats wins only if its own loss is so low that noise
does not explain it, or if no config has repeats; it is then the unconfirmed winner.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from optuna.trial import FrozenTrial

from studies.harness.store.trials import dev_loss, ranked, was_pruned_early
from studies.harness.store.winner.noise import (
    MIN_REPEATS,
    Group,
    Noise,
    Repeats,
    count_repeats,
    measure_noise,
    t_quantile,
)


@dataclass(frozen=True)
class Winner:
    """The best config of a study.

    Attributes:
        trial: the trial that found it.
        own: dev loss of this trial, in nats per character.
        group: its seed repeats; None if the winner is unconfirmed.
        tied: the other configs whose means do not differ significantly from the winner's.
        notes: sentences about trials with a lower loss of their own, or about the lack of a mean.
    """

    trial: FrozenTrial
    own: float
    group: Group | None = None
    tied: tuple[Group, ...] = ()
    notes: tuple[str, ...] = ()

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
        return f"{self.own:.4f}" if self.group is None else self.group.mean_text


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
    candidates = ranked(trials)
    if not candidates:
        return None
    repeats = count_repeats(trials)
    groups = noise.groups if noise else ()
    # A config that diverges with another seed wins only if there is nothing else.
    steady = [trial for trial in candidates if not repeats[trial.number].diverged] or candidates
    if noise is None or not math.isfinite(groups[0].mean):
        return _unconfirmed(steady[0], repeats[steady[0].number])

    best = groups[0]
    new = [trial for trial in steady if not repeats[trial.number].complete]
    if new:
        # The lowest of many losses is low by luck, so the limit depends on their number.
        t = t_quantile(noise.freedom, n_compared=len(new))
        if _own(new[0]) < best.mean - t * noise.sd * math.sqrt(1 + 1 / best.n):
            return _unconfirmed(new[0], repeats[new[0].number])
    tied = tuple(group for group in groups[1:] if not group.differs)
    named = {best.trial, *(group.trial for group in tied)}
    lowest = candidates[0]
    notes = []
    if lowest.number not in named:
        why = _why_unconfirmed(lowest, repeats[lowest.number]) or "its seed repeats are higher"
        notes.append(
            f"Trial {lowest.number} has the lowest loss of one seed, {_own(lowest):.4f}, but {why}."
        )
    return Winner(trials[best.trial], best.own, best, tied, tuple(notes))


def _unconfirmed(trial: FrozenTrial, repeats: Repeats) -> Winner:
    why = _why_unconfirmed(trial, repeats)
    return Winner(trial, _own(trial), notes=(f"It is not confirmed: {why}.",))


def _own(trial: FrozenTrial) -> float:
    loss = dev_loss(trial)
    assert loss is not None
    return loss


def _why_unconfirmed(trial: FrozenTrial, repeats: Repeats) -> str:
    """Return why a trial has no mean over seed repeats; empty if it has one."""
    if repeats.diverged:
        n_repeats = repeats.complete + repeats.diverged
        return f"{repeats.diverged} of its {n_repeats} seed repeats diverged"
    if repeats.complete == 1:
        return f"it has 1 seed repeat, and needs {MIN_REPEATS}"
    if repeats.complete:
        return ""
    if was_pruned_early(trial):
        return "it was pruned, and only complete trials get seed repeats"
    return "it has no seed repeats"


def describe(winner: Winner) -> list[str]:
    """Return the sentences about the winner that every output shows."""
    group = winner.group
    if group is None:
        return [
            f"Winner: trial {winner.number}, dev loss {winner.own:.4f} of one seed.",
            *winner.notes,
        ]
    sentences = [
        f"Winner: trial {winner.number}, dev loss {winner.loss_text} (95%, mean of {group.n} seed "
        f"repeats). Its own seed, in the search, has {winner.own:.4f}."
    ]
    if winner.tied:
        sentences.append(_describe_ties(winner.tied, group))
    return [*sentences, *winner.notes]


def _describe_ties(tied: Sequence[Group], best: Group) -> str:
    numbers = ", ".join(str(group.trial) for group in tied)
    sentence = f"Tied with it (95%): trial{'s' if len(tied) > 1 else ''} {numbers}"
    smallest = min(tied, key=lambda group: group.n_params)
    if smallest.n_params < best.n_params:
        which = f"the smallest model of them is trial {smallest.trial}"
        if len(tied) == 1:
            which = "its model is smaller"
        sentence += (
            f"; {which}, with {smallest.n_params:,.0f} parameters instead of {best.n_params:,.0f}"
        )
    return f"{sentence}."
