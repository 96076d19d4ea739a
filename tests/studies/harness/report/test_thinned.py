"""Trials that the figures of a large study draw."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from studies.harness.report.thinned import BEST, thin


def table(losses: np.ndarray) -> pd.DataFrame:
    """Return trials in the order of their numbers with these dev losses, lowest first."""
    trials = pd.DataFrame({"trial": np.arange(len(losses)), "dev_loss": losses})
    return trials.sort_values(["dev_loss", "trial"], ignore_index=True)


def test_small_study_is_drawn_whole() -> None:
    trials = table(np.random.default_rng(0).random(40))

    assert thin(trials, 40) is trials


def test_best_trials_records_and_kept_ones_are_drawn() -> None:
    losses = np.random.default_rng(0).random(1000)
    losses[:3] = 9.0, 8.0, 7.0  # the best so far, though the worst of all
    losses[600:] = np.nan
    trials = table(losses)

    drawn = thin(trials, 100, keep={599, 700})

    assert len(drawn) == 100
    assert list(drawn.trial[:25]) == list(trials.trial[: int(BEST * 100)])
    assert {0, 1, 2, 599, 700} <= set(drawn.trial)
    assert drawn.dev_loss.dropna().is_monotonic_increasing


def test_sample_covers_the_others_and_is_always_the_same() -> None:
    trials = table(np.random.default_rng(0).random(10_000))

    drawn = thin(trials, 2000)

    assert list(drawn.trial) == list(thin(trials.copy(), 2000).trial)
    others = drawn.dev_loss[500:]
    # Evenly over the losses of the other 9,500 trials, from 0.05 to 1.
    assert others.quantile([0.25, 0.5, 0.75]).to_list() == pytest.approx(
        [0.29, 0.525, 0.76], abs=0.05
    )


def test_more_kept_trials_than_fit_are_all_drawn() -> None:
    trials = table(np.linspace(2, 1, 50))  # each trial is the best so far

    assert len(thin(trials, 10)) == 50
