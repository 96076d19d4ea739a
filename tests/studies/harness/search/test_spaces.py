"""Search spaces: their distributions, and the envelope of their models."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from makemore.config import Config
from makemore.engines import Envelope
from makemore.errors import UserError
from studies.harness.search.spaces import describe, distributions, envelope, outside, with_ranges

BASE = Config()


def mixed(trial: optuna.Trial, base: Config) -> Config:
    return narrow(trial, base).replace(
        dropout=trial.suggest_float("dropout", 0.0, 0.5, step=0.1),
        weight_decay=trial.suggest_float("weight_decay", 1e-4, 1.0, log=True),
        direct=trial.suggest_categorical("direct", [False, True]),
        optimizer=trial.suggest_categorical("optimizer", ["sgd", "adamw"]),
    )


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


@pytest.mark.filterwarnings("error")
def test_choice_that_a_database_cannot_hold_is_refused() -> None:
    class Layered(Config):
        layers: tuple[int, ...] = (100,)

    def deep(trial: optuna.Trial, base: Layered) -> Config:
        layers = trial.suggest_categorical("layers", [(100,), (100, 50)])  # type: ignore[list-item]
        return base.replace(layers=layers)

    with pytest.raises(UserError, match=r"layers has the choice \(100,\) of type tuple; choices"):
        distributions(deep, Layered())


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


# ---- ranges of --range


def test_given_range_replaces_that_of_the_space() -> None:
    ranges = {"lr": "1e-3:3", "n_hidden": "50:600", "batch_size": "64,512", "direct": "true"}
    wide = with_ranges(mixed, BASE, ranges)

    found = distributions(wide, BASE)
    assert found["lr"] == FloatDistribution(1e-3, 3.0, log=True)
    assert found["n_hidden"] == IntDistribution(50, 600, step=50)
    assert found["batch_size"] == CategoricalDistribution([64, 512])
    assert found["direct"] == CategoricalDistribution([True])
    # The other ranges stay.
    kept = distributions(mixed, BASE)
    assert all(found[name] == kept[name] for name in kept.keys() - ranges.keys())
    assert envelope(wide, BASE).n_hidden == 600
    assert '"high": 600' in describe(wide, BASE)["n_hidden"]


def test_trial_of_a_given_range_sets_the_config() -> None:
    wide = with_ranges(narrow, BASE, {"n_hidden": "400:450"})
    trials = [optuna.create_study().ask() for _ in range(4)]

    assert {wide(trial, BASE).n_hidden for trial in trials} <= {400, 450}
    assert all(trial.distributions["n_hidden"].low == 400 for trial in trials)  # type: ignore


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("n_hiden", "50:600", "this study does not search n_hiden; did you mean n_hidden."),
        (
            "epochs",
            "1:2",
            "this study does not search epochs; it searches batch_size, direct, dropout, lr, "
            "n_hidden, optimizer, weight_decay.",
        ),
        ("lr", "1:0.1", "the lower edge 1.0 must be below the upper edge 0.1."),
        ("n_hidden", "50:50", "the lower edge 50 must be below the upper edge 50."),
        ("lr", "low:1", "'low' is not a number."),
        ("lr", ":1", "'' is not a number."),
        ("n_hidden", "50:60.5", "'60.5' is not an integer."),
        ("lr", "0.1", "lr has a range; give --range lr=LOW:HIGH."),
        ("lr", "0.1,0.2", "lr has a range; give --range lr=LOW:HIGH."),
        ("batch_size", "32:64", "batch_size has choices; give --range batch_size=A,B,C."),
        ("batch_size", "32,x", "'x' is not an integer."),
        ("batch_size", "32,64,32", "a choice is given twice; give each choice once."),
        ("lr", "0:1", "lr must be greater than 0, but got 0.0."),
        ("lr", "nan:1", "lr must be a finite number, but got nan."),
        ("lr", "0.1:1e999", "lr must be a finite number, but got inf."),
        ("n_hidden", "0:50", "n_hidden must be at least 1, but got 0."),
        ("dropout", "0:1", "dropout must be less than 1.0, but got 1.0."),
        ("batch_size", "0,32", "batch_size must be at least 1, but got 0."),
        ("optimizer", "sgd,adam", "optimizer must be 'sgd' or 'adamw', but got 'adam'."),
        ("weight_decay", "0:1", "weight_decay is searched in log, so 0.0 must be greater than 0."),
        (
            "n_hidden",
            "50:610",
            "n_hidden is searched in steps of 50, which do not lead from 50 to 610; give for "
            "example --range n_hidden=50:600.",
        ),
        (
            "dropout",
            "0.0:0.25",
            "dropout is searched in steps of 0.1, which do not lead from 0.0 to 0.25; give for "
            "example --range dropout=0.0:0.2.",
        ),
    ],
)
def test_bad_range_is_refused_in_a_sentence(name: str, text: str, sentence: str) -> None:
    with pytest.raises(UserError) as caught:
        with_ranges(mixed, BASE, {name: text})
    assert str(caught.value) == f"--range {name}={text}: {sentence}"


def test_parameters_outside_the_space_are_found() -> None:
    inside = {"lr": 0.05, "n_hidden": 100, "batch_size": 32}
    assert outside(narrow, BASE, inside) == []
    for change in ({"lr": 0.2}, {"n_hidden": 120}, {"batch_size": 128}):
        assert outside(narrow, BASE, {**inside, **change}) == list(change)


def test_space_without_config_or_suggestion_is_refused() -> None:
    def forgets_return(trial: optuna.Trial, base: Config) -> Any:
        base.replace(lr=trial.suggest_float("lr", 0.1, 1.0))

    with pytest.raises(UserError, match="returned a NoneType; end it with: return base.replace"):
        distributions(forgets_return, BASE)
    with pytest.raises(UserError, match="the search space suggests nothing"):
        distributions(lambda trial, base: base, BASE)
