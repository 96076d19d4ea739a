"""A slot of the batched engine: one model, its step count and its evaluations so far."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from torch import Tensor

from makemore.config import Config
from makemore.engines.base import Diverged, EvalPoint, check_finite, next_stop
from makemore.engines.batched.stack import State
from makemore.schedule import lr_at


@dataclass
class Slot:
    """A model. It trains while it has a row of the stack; without a row it waits on the host.

    Attributes:
        config: the model and its training.
        step: optimizer steps done by its weights.
        evaluated: the step of the last evaluation that was returned.
        history: the evaluations that were returned.
        row: its row of the stack; None while it waits.
        state: while it waits, the state to resume from; None to start at step 0.
        best: while it waits, the weights (width,) with the lowest dev loss; None before the first
            evaluation.
        done: whether it is at max_steps, diverged or failed.
        seconds: time spent in training and evaluation, shared with the models in other rows.
    """

    config: Config
    step: int = 0
    evaluated: int = 0
    history: list[EvalPoint] = field(default_factory=list)
    row: int | None = None
    state: State | None = None
    best: Tensor | None = None
    done: bool = False
    seconds: float = 0.0

    @property
    def stop(self) -> int:
        """The step to train to; a restarted model first repeats the steps up to `evaluated`."""
        if self.step < self.evaluated:
            return self.evaluated
        return next_stop(self.config, self.evaluated)

    def judge(self, loss_sum: float, dev_loss: float) -> EvalPoint | Diverged:
        """Return the outcome of an evaluation.

        Args:
            loss_sum: sum of the minibatch losses since the previous evaluation, in nats.
            dev_loss: in nats.
        """
        minibatch_loss = loss_sum / (self.step - self.evaluated)
        try:
            check_finite(self.step, minibatch_loss, dev_loss)
        except Diverged as diverged:
            return diverged.with_traceback(None)
        lr = float(lr_at(self.config, np.array([self.step - 1]))[0])
        return EvalPoint(self.step, minibatch_loss, dev_loss, lr)

    def is_best(self, outcome: EvalPoint | Diverged) -> bool:
        """Return whether a new outcome is better than all evaluations in the history."""
        return isinstance(outcome, EvalPoint) and all(
            outcome.dev_loss < point.dev_loss for point in self.history
        )

    def record(self, outcome: EvalPoint | Diverged) -> None:
        """Add an outcome to the history."""
        self.evaluated = self.step
        if isinstance(outcome, EvalPoint):
            self.history.append(outcome)
        self.done = isinstance(outcome, Diverged) or self.step == self.config.max_steps
