"""Trials: records, and which trials count, rank or follow the search."""

from __future__ import annotations

from typing import Any

import optuna
import pytest
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from makemore.engines import EvalPoint
from makemore.errors import UserError
from studies.harness.store.trials import (
    TrialRecord,
    counts,
    dev_loss,
    has_diverged,
    is_follow_up,
    minibatch_loss,
    ranked,
    restore_record,
    sampler_seed,
    trial_config,
    trial_seed,
    trial_tags,
    was_pruned_early,
)
from tests.studies.synthetic import falling, make_study, make_trial

PARAMS: dict[str, Any] = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def trial(loss: float = 2.2, **attrs: Any) -> FrozenTrial:
    return make_trial(PARAMS, falling(loss), **attrs)


def failed() -> FrozenTrial:
    return make_trial(PARAMS, [], state="FAIL")


def waiting(**attrs: Any) -> FrozenTrial:
    return optuna.create_trial(state=TrialState.WAITING, user_attrs=attrs)


def test_seeds_differ_between_trials_and_studies_only() -> None:
    assert trial_seed(0, 3) == trial_seed(0, 3)
    numbered = [(study, number) for study in range(5) for number in range(50)]
    # A sampler that shared its seed with a trial of another study would follow that trial's draws.
    seeds = {kind(*pair) for kind in (trial_seed, sampler_seed) for pair in numbered}
    assert len(seeds) == 500


@pytest.mark.parametrize(
    ("candidate", "expected"),
    [
        (trial(), True),
        (trial(state="PRUNED"), True),
        (failed(), True),
        (optuna.create_trial(state=TrialState.RUNNING), True),
        (waiting(), False),
        (trial(repeat_of=0), False),
        (trial(finishes=0), False),
        (trial(replaced="by trial 4"), False),
    ],
)
def test_running_and_finished_trials_count(candidate: FrozenTrial, expected: bool) -> None:
    assert counts(candidate) is expected


def test_seed_repeats_and_finishes_are_follow_ups() -> None:
    assert is_follow_up(trial(repeat_of=0)) and is_follow_up(trial(finishes=0))
    assert not is_follow_up(trial()) and not is_follow_up(trial(retry_of=0))


def test_dev_loss_is_the_lowest_also_when_pruned() -> None:
    assert dev_loss(make_trial(PARAMS, [2.5, 2.1, 2.3])) == 2.1
    assert dev_loss(make_trial(PARAMS, [2.5, 2.4], state="PRUNED")) == 2.4
    assert dev_loss(failed()) is None
    assert dev_loss(make_trial(PARAMS, [], state="PRUNED")) is None


def test_diverged_trial_was_not_pruned_early() -> None:
    pruned = trial(state="PRUNED")
    diverged = trial(state="PRUNED", reason="diverged at step 90")

    assert was_pruned_early(pruned) and not has_diverged(pruned)
    assert has_diverged(diverged) and not was_pruned_early(diverged)
    assert not was_pruned_early(trial())


def test_ranking_excludes_repeats_and_prefers_complete_trials() -> None:
    study = make_study(
        [
            trial(2.2, state="PRUNED"),
            trial(2.2),
            trial(2.1, repeat_of=1),
            failed(),
            trial(2.15, finishes=0),
            trial(2.2),
        ]
    )

    assert [t.number for t in ranked(study.trials)] == [4, 1, 5, 0]


def test_config_joins_base_params_and_seed() -> None:
    study = make_study([trial()])

    config = trial_config(study, study.trials[0])

    assert (config.lr, config.n_embd, config.seed) == (0.1, 10, 7)


def test_trial_of_another_program_is_refused() -> None:
    study = optuna.create_study(study_name="other", storage=optuna.storages.InMemoryStorage())
    study.add_trial(optuna.create_trial(value=1.0))

    with pytest.raises(UserError, match="study 'other': trial 0 was not made by these study"):
        trial_config(study, study.trials[0])


def test_tags_are_the_known_attributes_as_text() -> None:
    assert trial_tags(trial(repeat_of=3, other=1)) == {"launch": "one", "repeat_of": "3"}


def test_minibatch_loss_of_an_old_study_is_read() -> None:
    # Studies stored this mean as train_loss once; the history holds it without a name.
    history = [[100, 2.2, 2.3, 0.1, 11.0], [200, 2.1, 2.4, 0.1, 12.0]]
    old = {"best_step": 100, "dev_loss": 2.3, "train_loss": 2.2, "history": history}

    assert minibatch_loss(trial(summary=old)) == 2.2
    assert minibatch_loss(trial(summary={"best_step": None, "history": []})) is None
    assert minibatch_loss(trial(summary={})) is None


def test_record_is_restored_from_its_summary() -> None:
    study = make_study()
    config = Config(**study.user_attrs["base"], **PARAMS, seed=7)
    record = TrialRecord(
        number=0,
        config=config,
        params=PARAMS,
        started=10.0,
        tags={"launch": "one"},
        points=[EvalPoint(100, 2.4, 2.5, 0.1), EvalPoint(200, 2.2, 2.3, 0.1)],
        times=[11.0, 12.0],
        state="COMPLETE",
        reason="finished",
        metrics={"seconds": 2.0},
        ended=13.0,
    )
    study.add_trial(
        optuna.create_trial(
            value=2.3,
            params=PARAMS,
            distributions=trial().distributions,
            user_attrs={"seed": 7, "launch": "one", "summary": record.summary()},
        )
    )

    assert restore_record(study, study.trials[0]) == record
    assert record.best == record.points[1]
    assert record.summary()["best_step"] == 200
    assert minibatch_loss(study.trials[0]) == 2.2 and "train_loss" not in record.summary()
