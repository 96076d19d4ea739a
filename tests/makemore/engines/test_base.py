"""The engine interface: evaluation steps, divergence, envelopes and results."""

from __future__ import annotations

import pytest

from makemore.config import Config
from makemore.engines.base import (
    DIVERGED_LOSS,
    Diverged,
    Envelope,
    EvalPoint,
    TrainResult,
    check_finite,
    next_stop,
)
from makemore.model import MLP

NAN = float("nan")
INF = float("inf")


def test_next_stop_is_interval_multiple_or_end() -> None:
    config = Config(max_steps=10, eval_interval=4)

    assert [next_stop(config, step) for step in (0, 3, 4, 8, 9)] == [4, 4, 8, 10, 10]


@pytest.mark.parametrize(
    ("minibatch_loss", "dev_loss", "reported"),
    [(INF, 2.0, INF), (2.0, INF, INF), (2.0, DIVERGED_LOSS + 1, DIVERGED_LOSS + 1)],
)
def test_divergence_has_step_and_loss(
    minibatch_loss: float, dev_loss: float, reported: float
) -> None:
    with pytest.raises(Diverged, match="at step 7; lower the learning rate") as raised:
        check_finite(7, minibatch_loss, dev_loss)
    assert (raised.value.step, raised.value.loss) == (7, reported)


@pytest.mark.parametrize("losses", [(NAN, 2.0), (2.0, NAN)])
def test_nan_is_divergence(losses: tuple[float, float]) -> None:
    with pytest.raises(Diverged):
        check_finite(1, *losses)


def test_high_finite_loss_is_no_divergence() -> None:
    # A minibatch loss has no limit: only the dev loss is compared with DIVERGED_LOSS.
    check_finite(1, 1e6, DIVERGED_LOSS)


def test_envelope_has_largest_sizes_and_all_options() -> None:
    first = Config(block_size=2, n_hidden=50, dropout=0.1)
    second = Config(block_size=5, n_hidden=20, ema=0.5)
    envelope = Envelope.around(first, second)

    assert (envelope.block_size, envelope.n_hidden) == (5, 50)
    assert (envelope.direct, envelope.dropout, envelope.ema) == (False, True, True)


def test_best_is_earliest_lowest_dev_loss() -> None:
    history = tuple(
        EvalPoint(step, 2.0, loss, 0.1) for step, loss in ((1, 2.5), (2, 2.3), (3, 2.3))
    )

    assert TrainResult(MLP(Config(), 27), history, 1, 0.0).best.step == 2
