"""Search spaces: their distributions, and the envelope of their models."""

from __future__ import annotations

import optuna
import pytest
from optuna.distributions import FloatDistribution, IntDistribution

from makemore.config import Config
from makemore.engines import Envelope
from makemore.errors import UserError
from studies.harness.search.spaces import describe, distributions, envelope

BASE = Config()


def narrow(trial: optuna.Trial, base: Config) -> Config:
    return base.replace(
        lr=trial.suggest_float("lr", 0.01, 0.1, log=True),
        n_hidden=trial.suggest_int("n_hidden", 50, 300, step=50),
        batch_size=trial.suggest_categorical("batch_size", [32, 256, 64]),
    )


def test_distributions_are_those_that_the_space_suggests() -> None:
    found = distributions(narrow, BASE)
    assert found["lr"] == FloatDistribution(0.01, 0.1, log=True)
    assert found["n_hidden"] == IntDistribution(50, 300, step=50)
    assert list(describe(narrow, BASE)) == ["batch_size", "lr", "n_hidden"]


def test_envelope_holds_the_largest_model() -> None:
    assert envelope(narrow, BASE) == Envelope.around(BASE.replace(n_hidden=300, batch_size=256))


def test_range_with_an_invalid_end_is_refused() -> None:
    def drops(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(dropout=trial.suggest_float("dropout", 0.0, 1.5))

    def picks(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(schedule=trial.suggest_categorical("schedule", ["step", "linear"]))

    with pytest.raises(
        UserError, match="holds dropout=1.5: dropout must be less than 1.0, but got"
    ):
        describe(drops, BASE)
    with pytest.raises(UserError, match="schedule must be 'constant', 'step' or 'cosine', but"):
        describe(picks, BASE)
    with pytest.raises(UserError, match="first trial is not valid: n_hiden is not a field"):
        describe(narrow, BASE, {"n_hiden": 3})


def test_fixed_field_in_the_space_is_refused() -> None:
    def hides(trial: optuna.Trial, base: Config) -> Config:
        return narrow(trial, base).replace(n_embd=3, dropout=0.5)

    with pytest.raises(UserError, match="the search space changes dropout, n_embd without"):
        distributions(hides, BASE)


def test_changed_suggestion_is_refused() -> None:
    def doubles(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=2 * trial.suggest_float("lr", 0.01, 0.1))

    with pytest.raises(UserError, match="the search space changes lr without suggesting it"):
        distributions(doubles, BASE)
