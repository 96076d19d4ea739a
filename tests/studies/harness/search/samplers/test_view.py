"""What a sampler sees of a study: no follow-up trials."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler

from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.search.samplers.tpe import default_sampler
from studies.harness.search.samplers.view import SearchSampler, SearchView

LR: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
}


def proposal_after(sampler: BaseSampler, n_repeats: int) -> dict[str, Any]:
    """Return what TPE proposes after twelve trials and some very good seed repeats."""
    study = optuna.create_study()
    for i in range(12):
        params = {"lr": 10 ** (-i / 4)}
        loss = abs(i - 5.0)
        study.add_trial(optuna.create_trial(params=params, distributions=LR, value=loss))
    for _ in range(n_repeats):
        repeat = optuna.create_trial(
            params={"lr": 1e-3}, distributions=LR, value=-1.0, user_attrs={"repeat_of": 11}
        )
        study.add_trial(repeat)
    view = SearchView(study, TrialTable(study).refresh())
    study.sampler = SearchSampler(sampler, view)
    trial = study.ask()
    trial.suggest_float("lr", 1e-3, 1.0, log=True)
    return trial.params


@pytest.mark.parametrize("make", [default_sampler, lambda seed: TPESampler(seed=seed)])
def test_sampler_does_not_see_repeats(make: Callable[[int], BaseSampler]) -> None:
    assert proposal_after(make(1), n_repeats=8) == proposal_after(make(1), n_repeats=0)
