"""What a sampler sees of a study: its search alone."""

from __future__ import annotations

from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.store.trials import is_follow_up


class SearchView(optuna.Study):
    """A view of a study that leaves out its follow-up trials.

    A seed repeat has the parameters of one of the best trials. If the sampler saw it, those
    parameters would count several times, and the proposals would crowd around them.

    Samplers read the trials through `_get_trials`. Optuna's HyperbandPruner filters a study in the
    same way.

    Attributes:
        table: all trials of the study.
        memory: what a sampler keeps for its next proposals.
    """

    def __init__(self, study: optuna.Study, table: TrialTable) -> None:
        self.__dict__.update(study.__dict__)
        self.table = table
        self.memory: Any = None

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in trials if not is_follow_up(trial)]


class SearchSampler(BaseSampler):
    """Gives another sampler the view of the search, in place of the study."""

    def __init__(self, sampler: BaseSampler, view: SearchView) -> None:
        self._sampler = sampler
        self._view = view

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(self._view, trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(self._view, trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(self._view, trial, param_name, param_distribution)
