"""Verdicts on the number of trials of synthetic studies, and the expected best of random draws."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.judge.stopping import expected_best, judge_stopping, order_trials
from studies.harness.report.page.next_steps import next_steps
from studies.harness.report.results import read_results
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of, results_of


def trials_of(losses: Sequence[float], enqueued: int = 0) -> pd.DataFrame:
    """Return complete trials with these dev losses, nan for a diverged one.

    Args:
        enqueued: how many of the first were enqueued.
    """
    made = []
    for i, loss in enumerate(losses):
        attrs: dict[str, Any] = {"origin": "enqueued"} if i < enqueued else {}
        if math.isnan(loss):
            attrs |= {"state": "PRUNED", "reason": "diverged at step 9"}
        made.append(make_trial(PARAMS, [] if math.isnan(loss) else falling(loss), **attrs))
    return results_of(*made).trials


def complete_trials(losses: np.ndarray) -> pd.DataFrame:
    """Return a table of complete trials, faster than from a study."""
    columns = {
        "trial": range(len(losses)),
        "state": "COMPLETE",
        "reason": "finished",
        "dev_loss": losses,
    }
    return pd.DataFrame({**columns, "origin": None, "finishes": None})


def stairs(*parts: tuple[int, float]) -> np.ndarray:
    """Return the losses of (number of trials, loss) parts."""
    return np.concatenate([np.full(n, loss) for n, loss in parts])


# ---- order and expected best


def test_only_proposed_trials_with_a_result_count() -> None:
    made = [
        make_trial(PARAMS, [], state="FAIL"),
        make_trial(PARAMS, [2.6, 2.5, 2.55], state="PRUNED"),  # its best loss counts
        make_trial(PARAMS, [2.1], state="PRUNED", reason="diverged at step 200"),
        make_trial(PARAMS, falling(2.3)),
        *repeats_of(3, 2.0),
        make_trial(PARAMS, falling(2.1), finishes=1),  # trial 1 is not counted twice
    ]

    order = order_trials(results_of(*made).trials)

    assert list(order.trial) == [0, 1, 2, 3]
    assert order.loss.tolist() == pytest.approx([math.nan, 2.5, math.nan, 2.3], nan_ok=True)
    assert order.best.tolist() == pytest.approx([math.nan, 2.5, 2.5, 2.3], nan_ok=True)


def test_expected_best_of_two_losses_is_a_coin_toss() -> None:
    expected = expected_best(order_trials(trials_of([2.4, 2.0])))

    # The higher loss remains the best with probability 1/2, 1/4, ...
    assert list(expected.trials) == [1, 2, 3, 4]
    assert list(expected["mean"]) == pytest.approx([2.2, 2.1, 2.05, 2.025])
    # Even 1/16 is above the 5% outside the band.
    assert list(expected.low) == [2.0] * 4
    assert list(expected.high) == [2.4] * 4


@pytest.mark.parametrize("enqueued", [0, 1, 2])
def test_expected_best_equals_resampling(enqueued: int) -> None:
    rng = np.random.default_rng(0)
    losses = [2.3, *(2.1 + rng.gamma(2, 0.1, 20))]
    losses[7] = math.nan  # counts as the worst
    counts = np.array([1, 2, 5, 21, 42])

    expected = expected_best(order_trials(trials_of(losses, enqueued)), counts)

    pool = np.where(np.isnan(losses), np.nanmax(losses), losses)
    for n, mean, low, high in expected[expected.trials >= max(1, enqueued)].to_numpy():
        draws = rng.choice(pool[enqueued:], (40_000, int(n) - enqueued))
        first = np.tile(pool[:enqueued], (40_000, 1))
        best = np.column_stack([first, draws]).min(axis=1)
        # Four standard errors: sd 0.14 / sqrt(40,000).
        assert mean == pytest.approx(best.mean(), abs=0.003)
        for quantile, share in ((low, 0.05), (high, 0.95)):
            assert (best < quantile).mean() < share + 0.005
            assert (best <= quantile).mean() > share - 0.005


def test_unbeaten_enqueued_trial_stays_the_best() -> None:
    expected = expected_best(order_trials(trials_of([2.0, 2.2, 2.3, 2.4], enqueued=1)))

    assert set(expected["mean"]) == set(expected.high) == {2.0}


def test_expected_gain_is_near_the_real_one_in_random_order() -> None:
    rng = np.random.default_rng(1)
    expected = []
    real = []
    for _ in range(400):
        losses = 2 + rng.random(64)  # a sampler that does not learn
        expected.append(judge_stopping(complete_trials(losses[:32]), 0.0).expected_gain)
        real.append(losses[:32].min() - losses.min())

    # Uniform losses: 1/33 - 1/65 on average.
    gain = 1 / 33 - 1 / 65
    assert np.mean(real) == pytest.approx(gain, rel=0.25)
    # Draws never go below the best trial, so they predict less.
    assert 0.6 < np.mean(expected) / gain < 1.0


# ---- verdicts


def test_flat_second_half_stops_the_search() -> None:
    losses = stairs((1, 2.5), (7, 2.2), (24, 2.0))

    stopping = judge_stopping(complete_trials(losses), noise_sd=0.005)

    assert stopping.verdict == "stop"
    assert stopping.more_trials == 0
    assert stopping.gain == pytest.approx(0.5)
    assert stopping.gain_last_quarter == stopping.gain_last_half == 0
    assert stopping.advice == "Stop the search: more trials are unlikely to help."
    assert stopping.reason == (
        "The last quarter of the trials (8, from trial 24 on) did not lower the best dev loss, nor "
        "did the last half; the total gain since trial 0 is 0.5000 nats. The gain of the last half "
        "is not above the noise between seeds (sd 0.0050). The expected best of 64 random draws "
        "from these trials is 0.0000 nats lower than that of 32 draws, which is not above it "
        "either."
    )


def test_gain_of_the_last_quarter_is_reported() -> None:
    # 0.5 in total; 0.1 in the last half, of which 0.05 in the last quarter.
    losses = stairs((1, 2.5), (7, 2.2), (8, 2.1), (8, 2.05), (8, 2.0))

    stopping = judge_stopping(complete_trials(losses), noise_sd=0.2)

    assert stopping.gain == pytest.approx(0.5)
    assert stopping.gain_last_quarter == pytest.approx(0.05)
    assert stopping.gain_last_half == pytest.approx(0.1)
    assert stopping.reason.startswith(
        "The last quarter of the trials (8, from trial 24 on) lowered the best dev loss by 0.0500 "
        "nats, 10% of the total gain of 0.5000 since trial 0; the last half lowered it by 0.1000."
    )
    assert stopping.verdict == "stop"
    assert "not above the noise between seeds (sd 0.2000)" in stopping.reason


# Losses that fall by 0.01 a trial. As many trials again have an expected gain of 0.01 times the
# sum of e^-k - e^-2k, about 0.004.
STEADY = 2.4 - 0.01 * np.arange(32)


def test_expected_gain_above_noise_doubles_the_trials() -> None:
    stopping = judge_stopping(complete_trials(STEADY), noise_sd=0.002)

    assert stopping.verdict == "continue"
    assert stopping.more_trials == 32
    assert stopping.expected_gain == pytest.approx(0.0043, abs=0.0003)
    assert stopping.advice == "Run 32 more trials."


def test_gain_above_the_expected_one_adds_a_quarter() -> None:
    stopping = judge_stopping(complete_trials(STEADY), noise_sd=0.02)

    assert stopping.verdict == "continue"
    assert stopping.more_trials == 8
    assert stopping.gain_last_half == pytest.approx(0.16)
    assert stopping.advice == "Run 8 more trials, then judge again."
    assert stopping.reason.endswith("So the sampler improves faster than random draws.")


def test_flat_quarter_alone_does_not_stop() -> None:
    losses = stairs((1, 2.5), (19, 2.2), (12, 2.0))

    stopping = judge_stopping(complete_trials(losses), noise_sd=0.01)

    assert stopping.gain_last_quarter == 0
    assert (stopping.verdict, stopping.more_trials) == ("continue", 8)


def test_early_lucky_trial_does_not_stop() -> None:
    # One trial is far better than the rest; among as many again there may be another such trial.
    losses = stairs((1, 2.5), (1, 2.0), (30, 2.3))

    stopping = judge_stopping(complete_trials(losses), noise_sd=0.01)

    assert stopping.gain_last_half == 0
    assert (stopping.verdict, stopping.more_trials) == ("continue", 32)


def test_unknown_noise_takes_a_share_of_the_gain() -> None:
    falls = stairs((1, 2.5), (7, 2.3), (12, 2.0 + 0.012), (12, 2.0))

    # 2% of 0.5 is 0.010: the last half gained 0.012, then 0.008.
    above = judge_stopping(complete_trials(falls))
    below = judge_stopping(complete_trials(np.where(falls == 2.0, 2.004, falls)))
    assert (above.verdict, below.verdict) == ("continue", "stop")
    assert "2% of the total gain (0.0100; the noise between seeds is unknown)" in above.reason


@pytest.mark.parametrize("losses", [[], [2.1] * 9, [math.nan] * 20, [2.0, *[2.1] * 20]])
def test_too_little_evidence_gives_no_verdict(losses: list[float]) -> None:
    stopping = judge_stopping(trials_of(losses))

    assert stopping.verdict == "unknown"
    assert stopping.more_trials == 0
    assert stopping.reason.endswith(".")


def test_gain_counts_from_first_measured_trial() -> None:
    losses = [math.nan, math.nan, 2.5, *[2.3] * 5, *[2.0] * 10]

    stopping = judge_stopping(trials_of(losses), noise_sd=0.01)

    assert stopping.gain == pytest.approx(0.5)
    assert "since trial 2" in stopping.reason


# ---- next steps


def advised(losses: np.ndarray, context: dict[str, Any]) -> list[str]:
    """Return the commands of the steps that advise more trials."""
    study = make_study([make_trial(PARAMS, falling(loss)) for loss in losses])
    findings = judge_study(read_results(study))
    steps = next_steps(findings, context)
    return [step.command for step in steps if step.sentence == findings.stopping.advice]


def test_command_has_the_new_total_of_trials() -> None:
    context = {"script": "studies/mlp.py", "flags": ["--names", "w.txt"]}

    (command,) = advised(STEADY, context)

    assert command.endswith(" --study made-up --names w.txt --trials 40")


def test_stopped_study_is_not_advised_to_continue() -> None:
    assert advised(stairs((1, 2.5), (31, 2.0)), {"script": "studies/mlp.py"}) == []
