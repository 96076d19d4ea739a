"""A large study, of whose trials a figure draws only a part."""

from __future__ import annotations

import numpy as np
import optuna
import pytest
from optuna.trial import FrozenTrial

from studies.harness.report.results import Results, read_results
from tests.studies.synthetic import PARAMS, make_study, make_trial, repeats_of

N_LARGE = 2300


def _trial(number: int, rng: np.random.Generator) -> FrozenTrial:
    # Each batch size has 575 trials, and those of batch size 32 are never among the best 500.
    batch_size = (32, 64, 128, 256)[number % 4]
    loss = 2.0 + rng.random() + (batch_size == 32)
    params = {**PARAMS, "lr": 10 ** rng.uniform(-3, 0), "batch_size": batch_size}
    state = "PRUNED" if number % 3 == 2 else "COMPLETE"
    return make_trial(params, [loss + 0.2, loss], state=state)


@pytest.fixture(scope="session")
def large_study() -> optuna.Study:
    """A study of N_LARGE trials and two seed repeats of trial 1500."""
    rng = np.random.default_rng(0)
    trials = [_trial(number, rng) for number in range(N_LARGE)]
    return make_study([*trials, *repeats_of(1500, 2.9, 2.9)])


@pytest.fixture(scope="session")
def large(large_study: optuna.Study) -> Results:
    """The results of `large_study`."""
    return read_results(large_study)
