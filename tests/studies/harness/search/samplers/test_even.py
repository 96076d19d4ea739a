"""The even spread of one learning rate: Optuna's contract, no gaps, other parameters refused."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.samplers import BaseSampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase

from studies.harness.search.samplers.even import EvenSampler


class TestEvenSampler(BasicSamplerTestCase):
    """The part of Optuna's contract that applies to one log-uniform float.

    EvenSampler refuses every other parameter, and two parameters would get the same share of their
    ranges. So the tests of integers, choices, steps, conditions and several parameters cannot
    apply. Nor does the suite for relative sampling: the sampler proposes each parameter alone.
    """

    test_int = None  # type: ignore[assignment]
    test_categorical = None  # type: ignore[assignment]
    test_conditional_sample_independent = None  # type: ignore[assignment]
    test_nan_objective_value = None  # type: ignore[assignment]  # its float is uniform
    test_partial_fixed_sampling = None  # type: ignore[assignment]
    test_sample_single_distribution = None  # type: ignore[assignment]
    test_conditional_parameter_objective = None  # type: ignore[assignment]
    test_combination_of_different_distributions_objective = None  # type: ignore[assignment]
    test_dynamic_range_objective = None  # type: ignore[assignment]

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return EvenSampler

    @pytest.mark.parametrize("distribution", [FloatDistribution(1e-7, 1.0, log=True)])
    def test_float(
        self, sampler: Callable[[], BaseSampler], distribution: FloatDistribution
    ) -> None:
        super().test_float(sampler, distribution)

    @pytest.mark.parametrize(
        "suggest_method_x",
        [
            lambda trial: trial.suggest_float("x", 1e-7, 10.0, log=True),
            lambda trial: trial.suggest_float("x", 10.0, 10.0, log=True),
        ],
    )
    def test_single_parameter_objective(
        self,
        sampler: Callable[[], BaseSampler],
        suggest_method_x: Callable[[optuna.Trial], float],
    ) -> None:
        super().test_single_parameter_objective(sampler, suggest_method_x)


def test_even_trials_leave_no_gap() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=EvenSampler())
    exponents: list[float] = []
    for n in range(1, 65):
        trial = study.ask()
        exponents.append(math.log10(trial.suggest_float("lr", 1e-3, 1.0, log=True)))
        gaps = np.diff([-3, *sorted(exponents), 0])
        # The widest gap stays within twice that of n evenly spaced points.
        assert gaps.max() <= 2 * 3 / (n + 1) and gaps.min() > 0


def test_even_sampler_refuses_other_parameters() -> None:
    study = optuna.create_study(sampler=EvenSampler())
    with pytest.raises(TypeError, match="EvenSampler takes log-uniform floats, but n is"):
        study.ask().suggest_int("n", 1, 3)
