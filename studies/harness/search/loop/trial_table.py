"""What the search asks about the trials of its study, kept up to date at the cost of what changed.

Optuna never changes a finished trial. So a table reads each finished trial once, and then only the
open ones again. With 10,000 trials, reading all of them for each question would cost more than a
training.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import counts, is_follow_up, rank

Params = tuple[tuple[str, Any], ...]


class TrialTable:
    """The trials of one study. For one thread; call `refresh` before a question.

    Attributes:
        trials: all trials, by number.
        finished: the finished ones, in the order in which this table saw them end.
        open: numbers of the waiting and running trials.
        ranked: the sort key of each trial with a dev loss, lowest first, see `rank`. Seed repeats
            are left out.
    """

    def __init__(self, study: optuna.Study) -> None:
        self._study = study
        self.trials: list[FrozenTrial] = []
        self.finished: list[FrozenTrial] = []
        self.open: set[int] = set()
        self.ranked: list[tuple[float, bool, int]] = []
        self._counted = 0  # finished trials that count towards the total
        self._numbers: dict[Params, int] = {}  # lowest number of the counted finished trials

    def refresh(self) -> TrialTable:
        """Read the trials that are new or were open; returns this table."""
        known = len(self.trials)
        self.trials = self._study.get_trials(deepcopy=False)
        self.open.update(range(known, len(self.trials)))
        for number in sorted(self.open):
            trial = self.trials[number]
            if trial.state.is_finished():
                self.open.remove(number)
                self._add(trial)
        return self

    def _add(self, trial: FrozenTrial) -> None:
        self.finished.append(trial)
        if (key := rank(trial)) is not None:
            insort(self.ranked, key)
        if counts(trial):
            self._counted += 1
            number = self._numbers.setdefault(_hashable(trial.params), trial.number)
            self._numbers[_hashable(trial.params)] = min(number, trial.number)

    @property
    def n_counted(self) -> int:
        """How many trials count towards the total."""
        return self._counted + sum(counts(self.trials[number]) for number in self.open)

    def waiting_follow_ups(self) -> list[FrozenTrial]:
        """Return the follow-up trials that no launch has taken, by number."""
        waiting = [self.trials[number] for number in sorted(self.open)]
        return [t for t in waiting if t.state == TrialState.WAITING and is_follow_up(t)]

    def duplicate_of(self, trial: optuna.Trial) -> int | None:
        """Return the lowest number of another counted trial with the same parameters, or None."""
        params = trial.params
        others = [self.trials[number] for number in self.open if number != trial.number]
        found = [t.number for t in others if counts(t) and t.params == params]
        if (number := self._numbers.get(_hashable(params))) is not None:
            found.append(number)
        return min(found, default=None)

    def n_better(self, loss: float) -> int:
        """Return how many trials have a dev loss below `loss`."""
        return bisect_left(self.ranked, (loss,))  # a prefix sorts first


def _hashable(params: dict[str, Any]) -> Params:
    return tuple(sorted(params.items()))
