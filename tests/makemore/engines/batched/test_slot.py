"""Slots of the batched engine: the next stop, outcomes and the best evaluation."""

from __future__ import annotations

import pytest

from makemore.engines import Diverged, EvalPoint
from makemore.engines.batched.slot import Slot
from tests.makemore.engines.batched.runs import TINY  # evaluates at 4, 8 and 12


def test_restarted_model_stops_at_last_evaluation() -> None:
    slot = Slot(TINY, step=8, evaluated=8)

    assert slot.stop == 12
    # A restart sets the step to 0; steps up to 8 are repeated without another outcome.
    slot.step = 0
    assert slot.stop == 8


def test_outcome_has_mean_minibatch_loss() -> None:
    slot = Slot(TINY, step=8, evaluated=4)
    point = slot.judge(loss_sum=10.0, dev_loss=2.0)

    assert isinstance(point, EvalPoint)
    assert (point.step, point.minibatch_loss, point.dev_loss) == (8, 2.5, 2.0)


@pytest.mark.parametrize("losses", [(float("nan"), 2.0), (1.0, float("inf"))])
def test_infinite_loss_ends_the_model(losses: tuple[float, float]) -> None:
    slot = Slot(TINY, step=4)
    outcome = slot.judge(*losses)
    slot.record(outcome)

    assert isinstance(outcome, Diverged) and slot.done
    assert slot.history == [] and not slot.is_best(outcome)


def test_best_needs_lower_dev_loss() -> None:
    slot = Slot(TINY, step=4)
    slot.record(slot.judge(10.0, 2.0))

    assert not slot.done
    for step, dev_loss, best in ((8, 2.0, False), (12, 1.9, True)):
        slot.step = step
        outcome = slot.judge(10.0, dev_loss)
        assert slot.is_best(outcome) == best
        slot.record(outcome)
    assert slot.done
