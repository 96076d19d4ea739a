"""Learning rates of the schedules, and weights of the running average."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from makemore.config import Config
from makemore.schedule import averaging_at, lr_at


def rates(schedule: str, max_steps: int = 200_000, lr: float = 0.1) -> np.ndarray:
    config = Config(schedule=schedule, max_steps=max_steps, lr=lr)  # type: ignore[arg-type]
    return lr_at(config, np.arange(max_steps))


def test_constant_schedule_is_constant() -> None:
    assert np.all(rates("constant", 100) == np.float32(0.1))


def test_step_schedule_is_the_lectures() -> None:
    # The lecture: lr = 0.1 if i < 100000 else 0.01, of 200,000 steps.
    values = rates("step")

    assert np.all(values[:100_000] == np.float32(0.1))
    assert np.all(values[100_000:] == np.float32(0.01))


@pytest.mark.parametrize(("max_steps", "high"), [(1, 1), (2, 1), (5, 3)])
def test_step_schedule_drops_at_half(max_steps: int, high: int) -> None:
    assert (rates("step", max_steps) == np.float32(0.1)).sum() == high


def test_cosine_schedule_rises_then_falls_to_zero() -> None:
    values = rates("cosine", 1000)

    # The rise is linear, from lr / 50 at the first step to lr at the fiftieth.
    np.testing.assert_allclose(values[:50], 0.1 * np.arange(1, 51) / 50, rtol=1e-5)
    # In the middle of its fall, half a cosine is at half its height.
    assert values[50 + 475] == pytest.approx(0.05, rel=1e-4)
    assert np.all(np.diff(values[50:]) <= 0) and 0 < values[-1] < 1e-6


@given(
    schedule=st.sampled_from(["constant", "step", "cosine"]),
    max_steps=st.integers(1, 3000),
    lr=st.floats(1e-6, 10),
    cut=st.floats(0, 1),
)
def test_rates_are_bounded_and_equal_in_pieces(
    schedule: str, max_steps: int, lr: float, cut: float
) -> None:
    config = Config(schedule=schedule, max_steps=max_steps, lr=lr)  # type: ignore[arg-type]
    values = rates(schedule, max_steps, lr)
    k = int(cut * max_steps)
    pieces = [lr_at(config, np.arange(k)), lr_at(config, np.arange(k, max_steps))]

    assert values.dtype == np.float32 and values.shape == (max_steps,)
    assert np.all(values > 0) and np.all(values <= np.float32(lr))
    assert np.array_equal(np.concatenate(pieces), values)


@pytest.mark.parametrize("ema", [0.0, 0.1, 1.0])
def test_running_average_covers_its_share_of_steps(ema: float) -> None:
    weights = averaging_at(Config(ema=ema), np.arange(2000)).astype(np.float64)
    # Weight of each step in the average after the last step.
    shares = weights * np.append(np.cumprod((1 - weights)[:0:-1])[::-1], 1)

    assert shares.sum() == pytest.approx(1)
    ages = 2000 - 1 - np.arange(2000)
    assert (shares * ages).sum() == pytest.approx(ema / (1 + ema) * 2000, rel=0.02, abs=1e-9)
    if ema == 1:
        np.testing.assert_allclose(shares, 1 / 2000, rtol=1e-4)
