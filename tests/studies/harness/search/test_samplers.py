"""The sampler of the wide search: what its first trials cover, and that a trial's number decides its point."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import optuna
from optuna.trial import TrialState

from studies.harness.search.samplers import SPREAD, SpreadThenTPE
from studies.harness.search.spaces import describe, distributions
from studies.record import BASE
from studies.record import space as eight_parameters

SPACE = distributions(eight_parameters, BASE)


def make_study(seed: int) -> optuna.Study:
    study = optuna.create_study()
    study.set_user_attr("seed", seed)
    study.set_user_attr("space", describe(eight_parameters, BASE))
    return study


def propose(study: optuna.Study, n: int) -> list[dict[str, Any]]:
    """Ask for n trials, each from a sampler of its own as a study does, and tell a loss that lr decides."""
    asked = []
    for _ in range(n):
        study.sampler = SpreadThenTPE(len(study.trials))
        trial = study.ask()
        eight_parameters(trial, BASE)
        study.tell(trial, abs(np.log10(trial.params["lr"]) + 2.5))
        asked.append(trial.params)
    return asked


def test_the_first_trials_spread_over_every_range() -> None:
    params = propose(make_study(seed=3), SPREAD)

    # A Sobol sequence puts one point into each sixteenth of a range, and so each choice comes equally often.
    for name in ("lr", "weight_decay"):
        d = SPACE[name]
        shares = [np.log(p[name] / d.low) / np.log(d.high / d.low) for p in params]  # type: ignore[attr-defined]
        assert sorted(int(share * SPREAD) for share in shares) == list(range(SPREAD))
    for name, times in (("batch_size", 4), ("direct", 8), ("n_hidden", 2)):
        assert set(Counter(p[name] for p in params).values()) == {times}
    assert min(p["block_size"] for p in params) == 4 and max(p["block_size"] for p in params) == 12


def test_the_seed_of_the_study_decides_the_points_and_the_number_of_a_trial_which() -> None:
    one, again, other = make_study(seed=1), make_study(seed=1), make_study(seed=2)
    first = propose(one, 10)
    propose(again, 1)
    again.enqueue_trial(
        first[1]
    )  # one that waits takes its own parameters, and the others' points stay theirs

    assert propose(again, 9) == first[1:]
    assert propose(other, 1) != first[:1]


def test_what_follows_is_proposed_by_tpe_from_what_was_found() -> None:
    study = make_study(seed=1)
    for params in propose(make_study(seed=5), 30):
        value = abs(np.log10(params["lr"]) + 2.5)
        study.add_trial(optuna.create_trial(value=value, params=params, distributions=SPACE))

    # A random lr lies within a third of a decade of the best one in a third of the trials.
    assert sum(abs(np.log10(p["lr"]) + 2.5) < 1 / 3 for p in propose(study, 20)) >= 13


def test_with_hundreds_at_once_proposals_go_on_before_the_first_result() -> None:
    study = make_study(seed=1)
    asked = []
    for number in range(SPREAD + 8):
        study.sampler = SpreadThenTPE(number)
        trial = study.ask()
        eight_parameters(trial, BASE)
        asked.append(trial.params)

    assert len({p["lr"] for p in asked}) == SPREAD + 8 and all(
        t.state == TrialState.RUNNING for t in study.trials
    )
