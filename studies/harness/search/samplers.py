"""The sampler of the wide search: points that spread over the whole space, then TPE."""

from __future__ import annotations

import math
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
from optuna.trial import FrozenTrial
from scipy.stats.qmc import Sobol

SPREAD = 16  # trials that are spread; fewer leave TPE too little to learn from, more spend steps on bad places


class SpreadThenTPE(BaseSampler):
    """Trials 0 to SPREAD - 1 from a scrambled Sobol sequence of the study's seed, the others by TPE.

    Optuna's QMCSampler counts its points in the storage and does not know the space before a first trial has ended;
    here a trial's point follows from its number alone, so that a study which was interrupted goes on the same.
    """

    def __init__(self, seed: int) -> None:
        self._tpe = TPESampler(seed=seed, n_startup_trials=0)

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """All parameters of the study for a spread trial, otherwise TPE's."""
        if trial.number >= SPREAD:
            return self._tpe.infer_relative_search_space(study, trial)
        return {
            name: json_to_distribution(text)
            for name, text in sorted(study.user_attrs["space"].items())
        }

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """The trial's point of the sequence, or TPE's proposal."""
        if trial.number >= SPREAD:
            return self._tpe.sample_relative(study, trial, search_space)
        point = spread_points(len(search_space), study.user_attrs["seed"])[trial.number]
        return {
            name: value_at(d, share)
            for (name, d), share in zip(search_space.items(), point, strict=True)
        }

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """By TPE."""
        return self._tpe.sample_independent(study, trial, param_name, param_distribution)


def spread_points(n_dims: int, seed: int) -> Any:
    """(SPREAD, n_dims) float64 in [0, 1): the first points of a scrambled Sobol sequence."""
    return Sobol(n_dims, scramble=True, rng=seed).random(SPREAD)


def value_at(distribution: Any, share: float) -> Any:
    """The value at a share in [0, 1) of a range: of choices, evenly spaced integers, or plain or log floats."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices[int(share * len(distribution.choices))]
    low, high = distribution.low, distribution.high
    if isinstance(distribution, IntDistribution):
        return low + distribution.step * int(share * ((high - low) // distribution.step + 1))
    return low * (high / low) ** share if distribution.log else low + (high - low) * share


class EvenSampler(BaseSampler):
    """Takes trial n of one log-uniform parameter from point n of the golden-ratio sequence.

    However many trials there are, they cover the range evenly, and more of them fill the gaps; each has another value.
    """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Nothing is sampled jointly."""
        return {}

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Nothing is sampled jointly."""
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> float:
        """The value of the trial's number.

        Raises:
            TypeError: the parameter is not a log-uniform float.
        """
        if not (isinstance(param_distribution, FloatDistribution) and param_distribution.log):
            raise TypeError(
                f"EvenSampler takes log-uniform floats, but {param_name} is {param_distribution}."
            )
        share = (0.5 + trial.number * (math.sqrt(5) - 1) / 2) % 1
        return param_distribution.low * (param_distribution.high / param_distribution.low) ** share


def default_sampler(seed: int) -> BaseSampler:
    """Tree-structured Parzen estimator."""
    return TPESampler(seed=seed)
