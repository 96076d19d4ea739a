"""A sampler that spreads the first trials evenly over the whole space, then proposes by TPE."""

from __future__ import annotations

from typing import Any

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.samplers import BaseSampler
from optuna.search_space import intersection_search_space
from optuna.trial import FrozenTrial

from studies.harness.search.samplers.tpe import make_tpe

# Number of spread trials. With fewer, TPE has too little to learn from. With more, the search
# spends steps in poor regions.
SPREAD = 16


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
        self._tpe = make_tpe(seed, n_startup_trials=0)

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
