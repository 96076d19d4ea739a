"""Samplers: the rules that choose the parameters of the next trial."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.samplers import BaseSampler, TPESampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial, TrialState

from studies.harness.store.trials import is_follow_up

# Number of spread trials. With fewer, TPE has too little to learn from. With more, the search
# spends steps in poor regions.
SPREAD = 16


def default_sampler(seed: int) -> BaseSampler:
    """Return the sampler of most studies: a tree-structured Parzen estimator (TPE)."""
    return TPESampler(seed=seed)


class SpreadThenTPE(BaseSampler):
    """Spread the first trials over the whole space, then propose by TPE.

    Trials 0 to SPREAD - 1 are the points of a scrambled Sobol sequence. Optuna's QMCSampler counts
    its points in the storage, and it does not know the space before the first trial ends. Here the
    trial's number alone decides its point, so an interrupted study continues with the same points.

    The space and the seed of the sequence are the attributes "space" and "seed" of the study. In a
    study without them, the space is that of its finished trials, and the seed is 0.

    Args:
        seed: seed of TPE.
    """

    def __init__(self, seed: int) -> None:
        self._tpe = TPESampler(seed=seed, n_startup_trials=0)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return all parameters of the study for a spread trial, otherwise those of TPE."""
        if trial.number >= SPREAD:
            return self._tpe.infer_relative_search_space(study, trial)
        space = study.user_attrs.get("space")
        if space is None:
            return intersection_search_space(study.get_trials(deepcopy=False))
        return {name: json_to_distribution(text) for name, text in sorted(space.items())}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return the trial's point of the sequence, or TPE's proposal."""
        if trial.number >= SPREAD:
            return self._tpe.sample_relative(study, trial, search_space)
        if not search_space:
            return {}
        points = spread_points(len(search_space), study.user_attrs.get("seed", 0))
        return {
            name: value_at(distribution, share)
            for (name, distribution), share in zip(
                search_space.items(), points[trial.number], strict=True
            )
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Return TPE's proposal for one parameter."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def spread_points(n_dims: int, seed: int) -> Any:
    """Return (SPREAD, n_dims) float64 in [0, 1): the first points of a scrambled Sobol sequence."""
    from scipy.stats.qmc import Sobol  # takes half a second to import

    return Sobol(n_dims, scramble=True, rng=seed).random(SPREAD)


def value_at(distribution: Any, share: float) -> Any:
    """Return the value at a share of a range, for example 0.5 for its middle.

    Choices, integers and floats with a step are evenly spaced. A range with log=True is spaced
    evenly on a log scale.

    Args:
        share: at least 0, below 1.
    """
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    if isinstance(distribution, IntDistribution):
        return _int_at(distribution, share)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.log:
        value = low * (high / low) ** share
    elif step is None:
        value = low + (high - low) * share
    else:
        n_values = round((high - low) / step) + 1
        value = min(low + step * int(share * n_values), high)
    return float(value)  # Optuna refuses the floats of numpy


def _int_at(distribution: IntDistribution, share: float) -> int:
    low, high = distribution.low, distribution.high
    if not distribution.log:
        n_values = (high - low) // distribution.step + 1
        return low + distribution.step * int(share * n_values)
    # On the log scale, integer k takes the part from k - 0.5 to k + 0.5.
    exact = (low - 0.5) * ((high + 0.5) / (low - 0.5)) ** share
    return min(max(round(exact), low), high)


class EvenSampler(BaseSampler):
    """Spread the trials evenly over one log-uniform parameter.

    Trial n takes point n of the golden-ratio sequence. So any number of trials covers the range
    evenly, further trials fill the gaps, and no value comes twice.
    """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Return an empty space: nothing is sampled jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Return no parameters: nothing is sampled jointly."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> float:
        """Return the value of the trial's number.

        Raises:
            TypeError: the parameter is not a log-uniform float.
        """
        if not (isinstance(param_distribution, FloatDistribution) and param_distribution.log):
            raise TypeError(
                f"EvenSampler takes log-uniform floats, but {param_name} is {param_distribution}."
            )
        share = (0.5 + trial.number * (math.sqrt(5) - 1) / 2) % 1
        return param_distribution.low * (param_distribution.high / param_distribution.low) ** share


class IgnoresFollowUps(BaseSampler):
    """A sampler that learns from the search alone.

    A seed repeat has the parameters of one of the best trials. If the sampler saw it, those
    parameters would count several times, and the proposals would crowd around them.
    """

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(_WithoutFollowUps(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(_WithoutFollowUps(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(
            _WithoutFollowUps(study), trial, param_name, param_distribution
        )


class _WithoutFollowUps(optuna.Study):
    """A view of a study that leaves out its follow-up trials.

    Samplers read the trials through `_get_trials`. Optuna's HyperbandPruner filters a study in the
    same way.
    """

    def __init__(self, study: optuna.Study) -> None:
        self.__dict__.update(study.__dict__)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in trials if not is_follow_up(trial)]
