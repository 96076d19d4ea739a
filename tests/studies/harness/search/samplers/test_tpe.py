"""The fast TPE proposes what Optuna's own proposes, to the last bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from optuna.samplers import BaseSampler, TPESampler
from optuna.testing.pytest_samplers import BasicSamplerTestCase, RelativeSamplerTestCase
from optuna.trial import TrialState

from makemore.config import Config
from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.search.samplers import tpe
from studies.harness.search.samplers.tpe import FastTPE
from studies.harness.search.samplers.view import SearchSampler, SearchView
from studies.harness.search.spaces import Space
from studies.record import BASE


class TestFastTPE(BasicSamplerTestCase, RelativeSamplerTestCase):
    """Optuna's contract, for studies without a view."""

    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return lambda: FastTPE(seed=0, n_startup_trials=0)


def all_kinds(trial: optuna.Trial, base: Config) -> Config:
    """Suggest parameters of all kinds of ranges, one of them with a single value."""
    return base.replace(
        lr=trial.suggest_float("lr", 3e-4, 3e-2, log=True),
        block_size=trial.suggest_int("block_size", 4, 12),
        n_embd=trial.suggest_int("n_embd", 8, 64, step=8),
        n_hidden=trial.suggest_int("n_hidden", 128, 2048, log=True),
        batch_size=trial.suggest_categorical("batch_size", [128, 256, 512, 1024]),
        dropout=trial.suggest_float("dropout", 0.0, 0.6),
        weight_decay=trial.suggest_float("weight_decay", 0.1, 0.1),
    )


def conditional(trial: optuna.Trial, base: Config) -> Config:
    """Suggest parameters that not all trials have."""
    values: dict[str, Any] = {"lr": trial.suggest_float("lr", 3e-4, 3e-2, log=True)}
    if trial.suggest_categorical("direct", [False, True]):
        values["dropout"] = trial.suggest_float("dropout", 0.0, 0.6)
    return base.replace(**values)


def end(study: optuna.Study, trial: optuna.Trial, rng: np.random.Generator) -> None:
    """End a trial in a random way, or leave it open."""
    loss = abs(np.log10(trial.params["lr"]) + 2.5) + 0.1 * rng.integers(3)  # with ties
    ending = rng.choice(["complete", "pruned", "unreported", "nan", "infeasible", "fail", "open"])
    if ending in ("pruned", "nan", "infeasible"):
        for step in range(1, rng.integers(2, 4)):
            trial.report(float("nan") if ending == "nan" else loss, step)
    if ending == "infeasible":
        trial.set_constraint("trains to its end", float(rng.integers(1, 3)))
    if rng.random() < 0.1:
        trial.set_user_attr("repeat_of", 0)
    if ending == "complete":
        study.tell(trial, loss)
    elif ending == "fail":
        study.tell(trial, state=TrialState.FAIL)
    elif ending != "open":
        study.tell(trial, state=TrialState.PRUNED)


def proposals(space: Space, kind: type[TPESampler], n: int) -> list[dict[str, Any]]:
    """Return the parameters of n trials that end in random ways."""
    study = optuna.create_study()
    table = TrialTable(study)
    view = SearchView(study, table)
    rng = np.random.default_rng(1)
    proposed = []
    for number in range(n):
        study.sampler = SearchSampler(kind(seed=number), view)
        trial = study.ask()
        table.refresh()
        space(trial, BASE)
        proposed.append(trial.params)
        end(study, trial, rng)
    return proposed


@pytest.mark.parametrize("space", [all_kinds, conditional])
def test_proposals_are_those_of_optuna(space: Space) -> None:
    fast = proposals(space, FastTPE, 150)

    assert fast == proposals(space, TPESampler, 150)


def test_proposal_of_another_process_is_avoided_before_its_trial_has_it() -> None:
    study = optuna.create_study()
    rng = np.random.default_rng(1)
    table = TrialTable(study)
    view = SearchView(study, table)
    for number in range(30):
        study.sampler = TPESampler(seed=number)
        trial = study.ask()
        all_kinds(trial, BASE)
        study.tell(trial, rng.random())
    # The other process has asked, and has not suggested any parameter yet.
    other = study.ask()
    assert other.relative_params and not other.params

    found = []
    for kind in (FastTPE, TPESampler):
        study.sampler = SearchSampler(kind(seed=99), view)
        trial = study.ask()
        table.refresh()
        found.append(trial.relative_params)
        study.tell(trial, state=TrialState.FAIL)

    assert found[0] == found[1]


def test_worse_group_is_limited_to_the_last_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tpe, "WINDOW", 5)
    study = optuna.create_study()
    study.sampler = TPESampler(seed=0)
    for number in range(20):
        trial = study.ask()
        all_kinds(trial, BASE)
        study.tell(trial, abs(number - 10.2))
    table = TrialTable(study).refresh()
    columns = tpe.Columns()
    columns.refresh(table)

    below, above = columns.split(table, 20)

    assert below.tolist() == [10, 11]
    assert above.tolist() == [15, 16, 17, 18, 19]
