"""A sampler that spreads all trials evenly over one learning rate."""

from __future__ import annotations

import math
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial


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
