"""Optuna's TPE with proposals that do not read all trials again.

Optuna's sampler goes through every trial of the study several times for each proposal. Here the
trials are columns of numbers that grow, and the worse group is limited to the last WINDOW trials.
Everything else is Optuna's code. Up to WINDOW trials, the proposals are Optuna's to the last bit.
"""

from __future__ import annotations

import json
import math
from bisect import insort
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.search.samplers.view import SearchView
from studies.harness.store.trials import MEASURED, is_follow_up

# Trials of the worse group that TPE compares with. Optuna takes all of them, with weights that fall
# with age, to almost 0 for the oldest.
WINDOW = 1000
MAX_BELOW = 25  # trials of the better group, as in Optuna


def default_sampler(seed: int) -> BaseSampler:
    """Return the sampler of most studies: a tree-structured Parzen estimator (TPE)."""
    return make_tpe(seed)


def make_tpe(seed: int, **settings: Any) -> TPESampler:
    """Return a TPE sampler; Optuna's own if this is not the version that FastTPE was tested with.

    Args:
        seed: of the sampler.
        settings: further arguments of Optuna's TPESampler.
    """
    kind = FastTPE if optuna.__version__.startswith("5.0.") else TPESampler
    return kind(seed=seed, **settings)


class FastTPE(TPESampler):
    """Optuna's TPE. In a `SearchView`, it reads the trials from columns that the view keeps."""

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return the parameters that all finished trials of the search have."""
        if not isinstance(study, SearchView):
            return super().infer_relative_search_space(study, trial)
        study.memory = study.memory or Columns()
        study.memory.refresh(study.table)
        return dict(study.memory.space or {})

    def _sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not isinstance(study, SearchView) or not search_space:
            return super()._sample_relative(study, trial, search_space)
        if study.memory.n < self._n_startup_trials:
            return {}
        return self._sample(study, trial, search_space)

    def _sample(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        if not isinstance(study, SearchView):
            return super()._sample(study, trial, search_space)
        columns: Columns = study.memory
        if not search_space.keys() <= (columns.space or {}).keys():
            return super()._sample(study, trial, search_space)
        better, worse = (
            self._parzen_estimator_cls(
                {name: columns.values(name, numbers) for name in search_space},
                search_space,
                self._parzen_estimator_parameters,
            )
            for numbers in columns.split(study.table, trial.number)
        )
        samples = better.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(samples, self._compute_acquisition_func(samples, better, worse))
        return {name: d.to_external_repr(chosen[name]) for name, d in search_space.items()}


class Columns:
    """The trials of a search as numbers.

    Attributes:
        space: the parameters that all finished trials have with the same range, sorted by name;
            without those that have a single value. None before the first trial ends.
    """

    def __init__(self) -> None:
        self.space: dict[str, BaseDistribution] | None = None
        self._n_read = 0  # trials of `table.finished`
        self._ranks: list[tuple[int, float, float, int]] = []  # sorted, see `_rank`
        self._is_finished = np.zeros(0, bool)  # by trial number
        self._values: dict[str, np.ndarray] = {}  # by trial number, in Optuna's internal form
        self._proposed: set[int] = set()  # numbers of running trials whose values are stored

    @property
    def n(self) -> int:
        """Finished trials with a value; failed ones have none."""
        return len(self._ranks)

    def refresh(self, table: TrialTable) -> None:
        """Add the trials that ended since the last call."""
        if len(table.trials) > len(self._is_finished):
            self._grow(2 * len(table.trials) + 100)
        for trial in table.finished[self._n_read :]:
            if trial.state in MEASURED and not is_follow_up(trial):
                self._add(trial)
        self._n_read = len(table.finished)

    def _grow(self, size: int) -> None:
        more = size - len(self._is_finished)
        self._is_finished = np.append(self._is_finished, np.zeros(more, bool))
        for name, column in self._values.items():
            self._values[name] = np.append(column, np.full(more, np.nan))

    def _add(self, trial: FrozenTrial) -> None:
        ranges = trial.distributions
        if self.space is None:
            self.space = {name: d for name, d in sorted(ranges.items()) if not d.single()}
        self.space = {name: d for name, d in self.space.items() if ranges.get(name) == d}
        insort(self._ranks, _rank(trial))
        self._is_finished[trial.number] = True
        self._proposed.discard(trial.number)
        self._store(trial.number, trial.params, ranges)

    def _store(
        self, number: int, params: dict[str, Any], ranges: dict[str, BaseDistribution]
    ) -> None:
        for name, value in params.items():
            if name not in self._values:
                self._values[name] = np.full(len(self._is_finished), np.nan)
            self._values[name][number] = ranges[name].to_internal_repr(value)

    def split(self, table: TrialTable, number: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the numbers of the better and of the worse trials, both sorted.

        Running trials are among the worse ones, so that no two proposals are alike.

        Args:
            table: the trials that the columns were read from.
            number: of the trial to propose for, which is left out.
        """
        n_below = min(math.ceil(0.1 * self.n), MAX_BELOW)
        below = np.sort(np.array([rank[-1] for rank in self._ranks[:n_below]], int))
        above = self._is_finished.copy()
        above[below] = False
        above[[n for n in table.open if n != number and self._is_proposed(table.trials[n])]] = True
        return below, np.flatnonzero(above)[-WINDOW:]

    def _is_proposed(self, trial: FrozenTrial) -> bool:
        """Return whether the values of a running trial are known; if so, store them."""
        assert self.space is not None
        if trial.state != TrialState.RUNNING or is_follow_up(trial):
            return False
        if trial.number in self._proposed:
            return True
        params = {**_relative_params(trial), **trial.params}
        if not self.space.keys() <= params.keys():
            return False
        self._store(trial.number, {name: params[name] for name in self.space}, self.space)
        self._proposed.add(trial.number)
        return True

    def values(self, name: str, numbers: np.ndarray) -> np.ndarray:
        """Return one parameter of some trials, (len(numbers),) float64, in Optuna's form."""
        return self._values[name][numbers]


def _rank(trial: FrozenTrial) -> tuple[int, float, float, int]:
    """Return the sort key of a finished trial in TPE; the number comes last.

    Complete trials come first, by value. Then come pruned ones: those with more steps first, and of
    these the one with the lower loss. The last ones are infeasible, by their violation.
    """
    violation = sum(value for value in trial.constraints.values() if value > 0)
    if violation > 0:
        return 2, violation, 0.0, trial.number
    if trial.state == TrialState.COMPLETE:
        assert trial.value is not None
        return 0, trial.value, 0.0, trial.number
    if not trial.intermediate_values:
        return 1, 1.0, 0.0, trial.number
    step, loss = max(trial.intermediate_values.items())
    return 1, -step, math.inf if math.isnan(loss) else loss, trial.number


def _relative_params(trial: FrozenTrial) -> dict[str, Any]:
    """Return the proposal that Optuna's TPE stored for a running trial, as JSON in parts."""
    parts: list[str] = []
    while part := trial.system_attrs.get(f"tpe:relative_params:{len(parts)}"):
        parts.append(part)
    try:
        params: dict[str, Any] = json.loads("".join(parts) or "{}")
    except json.JSONDecodeError:  # another process is storing the parts
        return {}
    return params
