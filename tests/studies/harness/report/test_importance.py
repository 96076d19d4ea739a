"""Importances of parameters, equal to those of Optuna."""

from __future__ import annotations

import math

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from studies.harness.report.importance import importances
from tests.studies.synthetic import SPACE

WIDE: dict[str, BaseDistribution] = {
    **SPACE,
    "width": IntDistribution(1, 64, log=True),
    "optimizer": CategoricalDistribution(["sgd", "adamw"]),
    "dropout": FloatDistribution(0.0, 0.5, step=0.1),
    "weight_decay": FloatDistribution(0.0, 1.0),
}


@pytest.mark.parametrize("n", [10, 60])
def test_importances_equal_those_of_optuna(n: int) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=n))
    for _ in range(n):
        trial = study.ask(dict(WIDE))
        p = trial.params
        loss = p["weight_decay"] + math.log10(p["lr"]) ** 2 / 3 + 0.2 * (p["optimizer"] == "sgd")
        study.tell(trial, loss)
    trials = study.trials

    ours = importances([t.values[0] for t in trials], [t.params for t in trials], WIDE)

    evaluator = optuna.importance.PedAnovaImportanceEvaluator(target_quantile=max(0.1, 5 / n))
    theirs = optuna.importance.get_param_importances(study, evaluator=evaluator)
    assert list(ours) == list(theirs)
    assert ours == pytest.approx(theirs, abs=1e-12)


def test_parameter_of_diverged_trials_matters_most() -> None:
    source = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=3))
    params = [source.ask(dict(SPACE)).params for _ in range(60)]

    shares = importances([math.inf if p["lr"] > 0.01 else 2.0 for p in params], params, SPACE)

    assert next(iter(shares)) == "lr"
    assert sum(shares.values()) == pytest.approx(1)


def test_too_few_trials_have_no_importances() -> None:
    params = [{"lr": 0.1}] * 12

    # Fewer than ten trials, fewer than five finite losses, no parameters.
    assert importances([2.0] * 9, params[:9], {"lr": SPACE["lr"]}) == {}
    assert importances([2.0] * 4 + [math.inf] * 8, params, {"lr": SPACE["lr"]}) == {}
    assert importances([2.0] * 12, params, {}) == {}


def test_constant_parameter_hardly_matters() -> None:
    params = [{"lr": 0.001 * 1.2**i, "block_size": 3} for i in range(30)]
    space = {name: SPACE[name] for name in ("lr", "block_size")}

    shares = importances([p["lr"] for p in params], params, space)

    assert shares["lr"] > 0.8
