"""The table of a study's trials agrees with the study after every change."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.trial import TrialState

from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.store.storage import open_storage
from studies.harness.store.trials import counts, is_follow_up, rank, ranked


def change(study: optuna.Study, rng: np.random.Generator, open_trials: list[optuna.Trial]) -> None:
    """Ask for a trial, enqueue one, or end one that is open."""
    action = rng.choice(["ask", "ask", "enqueue", "end", "end"])
    if action == "enqueue":
        attrs = {"repeat_of": 0} if rng.random() < 0.5 else {}
        study.enqueue_trial({"x": int(rng.integers(4))}, user_attrs=attrs)
    elif action == "ask" or not open_trials:
        trial = study.ask()
        trial.suggest_int("x", 0, 3)
        if rng.random() < 0.2:
            trial.set_user_attr("replaced", "the same parameters")
        open_trials.append(trial)
    else:
        trial = open_trials.pop(rng.integers(len(open_trials)))
        loss = float(rng.integers(5))
        if rng.random() < 0.8:
            trial.set_user_attr("summary", {"dev_loss": loss})
        if rng.random() < 0.3:
            study.tell(trial, state=TrialState.FAIL)
        elif rng.random() < 0.5:
            study.tell(trial, state=TrialState.PRUNED)
        else:
            study.tell(trial, loss)


@pytest.mark.parametrize("storage", [None, "study.journal"])
def test_table_agrees_with_the_study_after_every_change(
    storage: str | None, tmp_path: Path
) -> None:
    opened = open_storage(str(tmp_path / storage), "s") if storage else None
    study = optuna.create_study(storage=opened, sampler=optuna.samplers.RandomSampler(seed=0))
    rng = np.random.default_rng(2)
    open_trials: list[optuna.Trial] = []
    table = TrialTable(study)
    for _ in range(200):
        change(study, rng, open_trials)
        trials = study.get_trials()  # copies, which Optuna makes from its own records

        table.refresh()

        assert table.trials == trials
        assert table.n_counted == sum(map(counts, trials))
        assert table.ranked == [rank(trial) for trial in ranked(trials)]
        assert table.n_better(2.0) == sum(key is not None and key[0] < 2 for key in table.ranked)
        assert sorted(t.number for t in table.finished) == [
            t.number for t in trials if t.state.is_finished()
        ]
        assert table.waiting_follow_ups() == [
            t for t in trials if t.state == TrialState.WAITING and is_follow_up(t)
        ]
        for trial in open_trials:
            same = [t.number for t in trials if counts(t) and t.params == trial.params]
            same = [number for number in same if number != trial.number]
            assert table.duplicate_of(trial) == min(same, default=None)
