"""Whether a study has searched enough, of made-up studies for which that is known."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies.harness.report.judge.findings import find
from studies.harness.report.judge.stopping import expected_best, in_order, judge_search
from studies.harness.report.page.next_steps import next_steps
from studies.harness.report.results import read_results
from tests.studies.synthetic import falling, make_study, make_trial

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}


def trials_of(losses: Sequence[float], given: int = 0) -> pd.DataFrame:
    """Complete trials of these dev losses, nan for one that diverged; the first `given` of them were enqueued."""
    made = []
    for i, loss in enumerate(losses):
        attrs: dict[str, Any] = {"origin": "given"} if i < given else {}
        if math.isnan(loss):
            attrs |= {"state": "PRUNED", "reason": "diverged at step 9"}
        made.append(make_trial(PARAMS, [] if math.isnan(loss) else falling(loss), **attrs))
    return read_results(make_study(made)).trials


# ---- the order, and the blind draw


def test_pruned_trials_count_by_their_best_loss_and_diverged_failed_and_repeated_ones_do_not() -> (
    None
):
    made = [
        make_trial(PARAMS, [], state="FAIL"),
        make_trial(PARAMS, [2.6, 2.5, 2.55], state="PRUNED"),
        make_trial(PARAMS, [2.1], state="PRUNED", reason="diverged at step 200"),
        make_trial(PARAMS, falling(2.3)),
        make_trial(PARAMS, falling(2.0), repeat_of=3),
        make_trial(PARAMS, falling(2.1), finishes=1),  # what was found is one trial, not two
    ]

    order = in_order(read_results(make_study(made)).trials)

    assert list(order.trial) == [0, 1, 2, 3]
    assert order.loss.tolist() == pytest.approx([math.nan, 2.5, math.nan, 2.3], nan_ok=True)
    assert order.best.tolist() == pytest.approx([math.nan, 2.5, 2.5, 2.3], nan_ok=True)


def test_the_blind_draw_of_two_losses_is_that_of_a_coin() -> None:
    blind = expected_best(in_order(trials_of([2.4, 2.0])))

    # The higher one remains with probability 1/2, 1/4, ...
    assert list(blind.trials) == [1, 2, 3, 4]
    assert list(blind["mean"]) == pytest.approx([2.2, 2.1, 2.05, 2.025])
    assert (
        list(blind.low) == [2.0] * 4 and list(blind.high) == [2.4] * 4
    )  # one in sixteen is above 5%


@pytest.mark.parametrize("given", [0, 1, 2])
def test_the_blind_draw_is_what_resampling_gives(given: int) -> None:
    rng = np.random.default_rng(0)
    losses = [2.3, *(2.1 + rng.gamma(2, 0.1, 20))]
    losses[7] = math.nan  # counts as the worst
    counts = np.array([1, 2, 5, 21, 42])

    blind = expected_best(in_order(trials_of(losses, given)), counts)

    pool = np.where(np.isnan(losses), np.nanmax(losses), losses)
    for n, mean, low, high in blind[blind.trials >= max(1, given)].to_numpy():
        draws = rng.choice(pool[given:], (40_000, int(n) - given))
        best = np.column_stack([np.tile(pool[:given], (40_000, 1)), draws]).min(axis=1)
        assert mean == pytest.approx(
            best.mean(), abs=0.003
        )  # four standard errors, sd 0.14 / sqrt(40,000)
        for quantile, share in ((low, 0.05), (high, 0.95)):
            assert (best < quantile).mean() < share + 0.005 and (
                best <= quantile
            ).mean() > share - 0.005


def test_an_enqueued_trial_that_nothing_beats_leaves_nothing_to_draw() -> None:
    blind = expected_best(in_order(trials_of([2.0, 2.2, 2.3, 2.4], given=1)))

    assert set(blind["mean"]) == set(blind.high) == {2.0}


def test_what_is_foretold_of_twice_as_many_is_near_what_they_bring_where_trials_come_in_any_order() -> (
    None
):
    rng, foretold, came = np.random.default_rng(1), [], []
    for _ in range(400):
        losses = 2 + rng.random(64)  # a sampler that does not learn
        foretold.append(judge_search(trials(losses[:32]), 0.0).foretold)
        came.append(losses[:32].min() - losses.min())

    # Uniform losses: 1/33 - 1/65 on average; the draw, which knows nothing below its best, foretells a little less.
    assert np.mean(came) == pytest.approx(1 / 33 - 1 / 65, rel=0.25)
    assert 0.6 < np.mean(foretold) / (1 / 33 - 1 / 65) < 1.0


def trials(losses: np.ndarray) -> pd.DataFrame:
    """A table of complete trials, faster than by a study."""
    columns = {
        "trial": range(len(losses)),
        "state": "COMPLETE",
        "reason": "finished",
        "dev_loss": losses,
    }
    return pd.DataFrame({**columns, "origin": None, "finishes": None})


# ---- the verdict


def stairs(*parts: tuple[int, float]) -> np.ndarray:
    """So many trials of one loss each, and then of the next."""
    return np.concatenate([np.full(n, loss) for n, loss in parts])


def test_a_study_without_gain_in_its_second_half_has_searched_enough() -> None:
    search = judge_search(trials(stairs((1, 2.5), (7, 2.2), (24, 2.0))), noise_sd=0.005)

    assert search.verdict == "enough" and search.more == 0
    assert search.gain == pytest.approx(0.5) and search.late_gain == search.half_gain == 0
    assert "hardly help" in search.advice
    assert (
        "(8, from trial 24 on) did not lower the best dev loss, nor did the last half"
        in search.reason
    )


def test_the_share_of_the_last_quarter_is_told() -> None:
    # 0.5 in all; 0.1 in the last half, of which 0.05 in the last quarter.
    search = judge_search(
        trials(stairs((1, 2.5), (7, 2.2), (8, 2.1), (8, 2.05), (8, 2.0))), noise_sd=0.2
    )

    assert search.gain == pytest.approx(0.5)
    assert (search.late_gain, search.half_gain) == (pytest.approx(0.05), pytest.approx(0.1))
    assert (
        "(8, from trial 24 on) lowered the best dev loss by 0.0500, 10% of the whole gain of 0.5000"
        in search.reason
    )
    assert (
        search.verdict == "enough" and "no more than the noise of a seed (0.2000)" in search.reason
    )


# Losses that fall by 0.01 a trial: as many again promise 0.01 times the sum of e^-k - e^-2k, about 0.004.
STEADY = 2.4 - 0.01 * np.arange(32)


def test_a_study_of_which_more_is_foretold_than_noise_goes_on_for_as_many_trials() -> None:
    search = judge_search(trials(STEADY), noise_sd=0.002)

    assert search.verdict == "go on" and search.more == 32
    assert search.foretold == pytest.approx(0.0043, abs=0.0003)
    assert "Another 32 trials are worth it" in search.advice


def test_a_study_that_falls_more_than_is_foretold_goes_on_for_a_quarter() -> None:
    search = judge_search(trials(STEADY), noise_sd=0.02)

    assert search.verdict == "go on" and search.more == 8
    assert (
        search.half_gain == pytest.approx(0.16) and "the sampler that gets better" in search.reason
    )


def test_a_quarter_without_gain_is_no_proof_while_the_half_still_fell() -> None:
    search = judge_search(trials(stairs((1, 2.5), (19, 2.2), (12, 2.0))), noise_sd=0.01)

    assert search.late_gain == 0 and search.verdict == "go on" and search.more == 8


def test_an_early_lucky_trial_is_no_proof_either() -> None:
    # The best stands apart, and no trial came near it: by any order, as many again may well bring such a one.
    search = judge_search(trials(stairs((1, 2.5), (1, 2.0), (30, 2.3))), noise_sd=0.01)

    assert search.half_gain == 0 and search.verdict == "go on" and search.more == 32


def test_without_the_noise_of_a_seed_a_fiftieth_of_the_gain_is_little() -> None:
    falls = stairs((1, 2.5), (7, 2.3), (12, 2.0 + 0.012), (12, 2.0))

    assert judge_search(trials(falls)).verdict == "go on"  # 0.012 of 0.5
    assert judge_search(trials(np.where(falls == 2.0, 2.004, falls))).verdict == "enough"  # 0.008
    assert "the noise of a seed is unknown" in judge_search(trials(falls)).reason


@pytest.mark.parametrize("losses", [[], [2.1] * 9, [math.nan] * 20, [2.0, *[2.1] * 20]])
def test_too_few_trials_or_no_gain_and_no_noise_give_no_verdict(losses: list[float]) -> None:
    search = judge_search(trials_of(losses))

    assert search.verdict == "unknown" and search.more == 0 and search.reason.endswith(".")


def test_the_gain_counts_from_the_first_trial_that_was_measured() -> None:
    search = judge_search(
        trials_of([math.nan, math.nan, 2.5, *[2.3] * 5, *[2.0] * 10]), noise_sd=0.01
    )

    assert search.gain == pytest.approx(0.5) and "since trial 2" in search.reason


# ---- where it is told


def test_the_command_that_goes_on_has_the_total_of_the_trials() -> None:
    study = make_study([make_trial(PARAMS, falling(loss)) for loss in STEADY])

    steps = next_steps(
        find(read_results(study)), {"script": "studies/mlp.py", "flags": ["--names", "w.txt"]}
    )

    (step,) = [
        step for step in steps if "look again" in step.sentence or "are worth it" in step.sentence
    ]
    assert step.command.endswith(" --study made-up --names w.txt --trials 40")


def test_a_study_that_has_searched_enough_is_not_told_to_go_on() -> None:
    study = make_study([make_trial(PARAMS, falling(loss)) for loss in stairs((1, 2.5), (31, 2.0))])

    steps = next_steps(find(read_results(study)), {"script": "studies/mlp.py"})

    assert not any(
        "trials are worth it" in step.sentence or "look again" in step.sentence for step in steps
    )
