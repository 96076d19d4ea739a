"""Verdicts on the number of trials, and the order of trials."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from optuna.pruners import MedianPruner, NopPruner

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.judge.pruning import judge_pruning
from studies.harness.report.judge.stopping import Stopping, judge_stopping, order_trials
from studies.harness.report.page.next_steps import next_steps
from studies.harness.report.results import read_results
from tests.studies.harness.report.judge.replay import FIVE, read_curves, replay
from tests.studies.synthetic import (
    PARAMS,
    START,
    falling,
    make_study,
    make_trial,
    repeats_of,
    results_of,
)


def trials_of(losses: Sequence[float]) -> pd.DataFrame:
    """Return complete trials with these dev losses, nan for a diverged one."""
    made = []
    for loss in losses:
        attrs: dict[str, Any] = {}
        if math.isnan(loss):
            attrs = {"state": "PRUNED", "reason": "diverged at step 9"}
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
    return pd.DataFrame({**columns, "finishes": None, "audited": None})


def judge(trials: pd.DataFrame, noise_sd: float | None = None) -> Stopping:
    """Judge the pruner, then the number of trials."""
    return judge_stopping(trials, judge_pruning(trials), noise_sd)


def stairs(*parts: tuple[int, float]) -> np.ndarray:
    """Return the losses of (number of trials, loss) parts."""
    return np.concatenate([np.full(n, loss) for n, loss in parts])


# ---- order


def test_only_complete_trials_have_a_final_loss() -> None:
    made = [
        make_trial(PARAMS, [], state="FAIL"),
        make_trial(PARAMS, [2.6, 2.5, 2.55], state="PRUNED"),
        make_trial(PARAMS, [2.1], state="PRUNED", reason="diverged at step 200"),
        make_trial(PARAMS, falling(2.3)),
        *repeats_of(3, 2.0),
        make_trial(PARAMS, falling(2.1), finishes=1),  # trial 1 is not counted twice
    ]

    order = order_trials(results_of(*made).trials)

    assert list(order.trial) == [0, 1, 2, 3]
    nan = math.nan
    assert order.loss.tolist() == pytest.approx([nan, nan, nan, 2.3], nan_ok=True)
    assert order.best.tolist() == pytest.approx([nan, nan, nan, 2.3], nan_ok=True)


def test_trials_are_in_the_order_of_their_numbers() -> None:
    starts = [30.0, 10.0, 20.0]  # trial 0 was requeued, and trained again last
    made = [
        make_trial(PARAMS, falling(2.4 - 0.1 * i), at=START + starts[i]) for i in range(len(starts))
    ]

    assert list(order_trials(results_of(*made).trials).trial) == [0, 1, 2]


# ---- verdicts


def test_flat_second_half_stops_the_search() -> None:
    losses = stairs((1, 2.5), (7, 2.2), (24, 2.0))

    stopping = judge(complete_trials(losses), noise_sd=0.005)

    assert stopping.verdict == "stop"
    assert stopping.more_trials == 0
    assert stopping.gain == pytest.approx(0.5)
    assert stopping.gain_last_quarter == stopping.gain_last_half == 0
    assert stopping.advice == "Stop the search here."
    assert stopping.reason == (
        "The last quarter of the trials (8, from trial 24 on) did not lower the best dev loss, nor "
        "did the last half; the total gain since trial 0 is 0.5000 nats. The gain of the last half "
        "is not above the noise between seeds (sd 0.0050)."
    )


def test_gain_of_the_last_quarter_is_reported() -> None:
    # 0.5 in total; 0.1 in the last half, of which 0.05 in the last quarter.
    losses = stairs((1, 2.5), (7, 2.2), (8, 2.1), (8, 2.05), (8, 2.0))

    stopping = judge(complete_trials(losses), noise_sd=0.2)

    assert stopping.gain == pytest.approx(0.5)
    assert stopping.gain_last_quarter == pytest.approx(0.05)
    assert stopping.gain_last_half == pytest.approx(0.1)
    assert stopping.reason.startswith(
        "The last quarter of the trials (8, from trial 24 on) lowered the best dev loss by 0.0500 "
        "nats, 10% of the total gain of 0.5000 since trial 0; the last half lowered it by 0.1000."
    )
    assert stopping.verdict == "stop"
    assert "not above the noise between seeds (sd 0.2000)" in stopping.reason


# Losses that fall by 0.01 a trial.
STEADY = 2.4 - 0.01 * np.arange(32)


def test_gain_above_the_noise_adds_a_quarter() -> None:
    stopping = judge(complete_trials(STEADY), noise_sd=0.02)

    assert stopping.verdict == "continue"
    assert stopping.more_trials == 8
    assert stopping.gain_last_half == pytest.approx(0.16)
    assert stopping.advice == "Run 8 more trials, then judge again."
    # No promise: the gain of more trials is unknown.
    assert stopping.reason.endswith("is above the noise between seeds (sd 0.0200).")


def test_flat_quarter_alone_does_not_stop() -> None:
    losses = stairs((1, 2.5), (19, 2.2), (12, 2.0))

    stopping = judge(complete_trials(losses), noise_sd=0.01)

    assert stopping.gain_last_quarter == 0
    assert (stopping.verdict, stopping.more_trials) == ("continue", 8)


def pruned_study(audited: int, n_best: int, n_pruned: int) -> pd.DataFrame:
    """Return a falling search of 12 trials, with audited ones, of which some are the best."""
    trials = [make_trial(PARAMS, falling(2.4 - 0.01 * i)) for i in range(12)]
    losses = [2.2] * n_best + [2.6] * (audited - n_best)
    trials += [make_trial(PARAMS, falling(loss), audited=100) for loss in losses]
    trials += [make_trial(PARAMS, [2.9], state="PRUNED")] * n_pruned
    return results_of(*trials).trials


@pytest.mark.parametrize(
    ("study", "why"),
    [
        ((4, 2, 36), "The pruner stopped 36 of 52 trials, and the pruner is harmful. The last"),
        ((1, 0, 20), "The pruner stopped 20 of 33 trials, and it is unknown whether it stops good"),
        ((0, 0, 20), "The pruner stopped 20 of 32 trials, and it is unknown whether it stops good"),
    ],
)
def test_pruner_that_may_hide_the_best_allows_no_verdict(
    study: tuple[int, int, int], why: str
) -> None:
    stopping = judge(pruned_study(*study), noise_sd=0.01)

    assert (stopping.verdict, stopping.more_trials) == ("unknown", 0)
    assert stopping.advice == "It is unknown whether more trials would help."
    assert stopping.reason.startswith(why)
    # What the last trials gained is known all the same.
    assert stopping.gain > 0 and "The last quarter of the trials" in stopping.reason


def test_few_pruned_trials_allow_a_verdict() -> None:
    assert judge(pruned_study(0, 0, 8), noise_sd=0.01).verdict == "continue"


def test_gains_are_those_of_the_real_search() -> None:
    curves = read_curves(FIVE)
    final = curves.min(axis=1)

    stopping = judge(replay(curves, NopPruner(), 0.1), noise_sd=0.003)

    assert stopping.gain_last_half == pytest.approx(final[:150].min() - final.min())
    assert stopping.gain_last_quarter == pytest.approx(final[:225].min() - final.min())
    hidden = judge(replay(curves, MedianPruner(5, 0), 0.1), noise_sd=0.003)
    assert hidden.verdict == "unknown" and "the pruner is harmful" in hidden.reason


def test_unknown_noise_takes_a_share_of_the_gain() -> None:
    falls = stairs((1, 2.5), (7, 2.3), (12, 2.0 + 0.012), (12, 2.0))

    # 2% of 0.5 is 0.010: the last half gained 0.012, then 0.008.
    above = judge(complete_trials(falls))
    below = judge(complete_trials(np.where(falls == 2.0, 2.004, falls)))
    assert (above.verdict, below.verdict) == ("continue", "stop")
    assert "2% of the total gain (0.0100; the noise between seeds is unknown)" in above.reason


@pytest.mark.parametrize("losses", [[], [2.1] * 9, [math.nan] * 20, [2.0, *[2.1] * 20]])
def test_too_little_evidence_gives_no_verdict(losses: list[float]) -> None:
    stopping = judge(trials_of(losses))

    assert stopping.verdict == "unknown"
    assert stopping.more_trials == 0
    assert stopping.reason.endswith(".")


def test_gain_counts_from_first_measured_trial() -> None:
    losses = [math.nan, math.nan, 2.5, *[2.3] * 5, *[2.0] * 10]

    stopping = judge(trials_of(losses), noise_sd=0.01)

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
