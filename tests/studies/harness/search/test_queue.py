"""Which trial comes next: totals, seeds, resumed studies, duplicates, follow-up trials."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from makemore.config import Config
from studies.harness.search.queue import _IgnoresFollowUps
from tests.studies.conftest import Launcher, outcomes_of, trials_of

LR: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
}


def test_first_trial_is_the_lectures(launch: Launcher) -> None:
    launch(trials=2)
    assert trials_of("small")[0].params == {
        "lr": 0.1,
        "block_size": 3,
        "n_embd": 10,
        "n_hidden": 200,
        "batch_size": 32,
    }


def test_trials_flag_is_a_total(launch: Launcher) -> None:
    launch(trials=3)
    before = outcomes_of("small")

    launch(trials=3)
    assert outcomes_of("small") == before

    launch(trials=5)
    after = outcomes_of("small")
    assert len(after) == 5
    assert after[:3] == before


def test_seed_decides_study_with_one_worker(launch: Launcher) -> None:
    for study, seed in (("a", 0), ("b", 0), ("c", 1)):
        launch(study=study, trials=13, workers=1, seed=seed)

    assert outcomes_of("a") == outcomes_of("b")
    params = {study: [row[1] for row in outcomes_of(study)[1:]] for study in "ac"}
    assert params["a"] != params["c"]


def test_resumed_study_equals_uninterrupted_one(launch: Launcher) -> None:
    launch(study="whole", trials=14, workers=1)
    launch(study="parts", trials=12, workers=1)
    launch(study="parts", trials=14, workers=1)

    assert outcomes_of("whole") == outcomes_of("parts")


def test_workers_do_not_change_trials(launch: Launcher) -> None:
    launch(study="one", trials=6, workers=1, prune=False)
    launch(study="two", trials=6, workers=2, prune=False)

    # The first ten proposals are random, and a trial's seed comes from its number.
    assert outcomes_of("one") == outcomes_of("two")


def test_study_of_three_values_ends_early(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    def three(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(n_hidden=trial.suggest_int("n_hidden", 10, 30, step=10))

    assert launch(space=three, first=None, trials=5) == 0

    assert "The search space holds nothing new" in capsys.readouterr().err
    complete = [t for t in trials_of("small") if t.state == TrialState.COMPLETE]
    assert sorted(t.params["n_hidden"] for t in complete) == [10, 20, 30]


def proposal_after(n_repeats: int) -> dict[str, Any]:
    """Return what TPE proposes after twelve trials and some very good seed repeats."""
    study = optuna.create_study(sampler=_IgnoresFollowUps(optuna.samplers.TPESampler(seed=1)))
    for i in range(12):
        params = {"lr": 10 ** (-i / 4)}
        loss = abs(i - 5.0)
        study.add_trial(optuna.create_trial(params=params, distributions=LR, value=loss))
    for _ in range(n_repeats):
        repeat = optuna.create_trial(
            params={"lr": 1e-3}, distributions=LR, value=-1.0, user_attrs={"repeat_of": 11}
        )
        study.add_trial(repeat)
    trial = study.ask()
    trial.suggest_float("lr", 1e-3, 1.0, log=True)
    return trial.params


def test_sampler_does_not_see_repeats() -> None:
    assert proposal_after(n_repeats=8) == proposal_after(n_repeats=0)
