"""What the batched engine knows of one model: where it stands, and what it has shown."""

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
    """A model, which trains while it has a row of the stack; without one it waits on the host.

    Attributes:
        step: optimizer steps in its weights.
        evaluated: the step of the last evaluation that was returned.
        state: while it waits, what it goes on from; None to begin at step 0.
        best: while it waits, the weights (width,) of lowest dev loss, once there are any.
        done: whether it is at max_steps, diverged or failed.
        seconds: of training and evaluation, shared with all that trained beside it.
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
        """The step to train to. A model that had to begin again first repeats what it has shown already."""
        return (
            self.evaluated if self.step < self.evaluated else next_stop(self.config, self.evaluated)
        )

    def judge(self, loss_sum: float, dev_loss: float) -> EvalPoint | Diverged:
        """The outcome of an evaluation, from the sum of the minibatch losses since the one before."""
        train_loss = loss_sum / (self.step - self.evaluated)
        try:
            check_finite(self.step, train_loss, dev_loss)
        except Diverged as diverged:
            return diverged.with_traceback(None)
        return EvalPoint(
            self.step, train_loss, dev_loss, float(lr_at(self.config, np.array([self.step - 1]))[0])
        )

    def is_best(self, outcome: EvalPoint | Diverged) -> bool:
        """Whether an outcome that is not in the history yet is better than all that are."""
        return isinstance(outcome, EvalPoint) and all(
            outcome.dev_loss < point.dev_loss for point in self.history
        )

    def record(self, outcome: EvalPoint | Diverged) -> None:
        """Take an outcome into the history."""
        self.evaluated = self.step
        if isinstance(outcome, EvalPoint):
            self.history.append(outcome)
        self.done = isinstance(outcome, Diverged) or self.step == self.config.max_steps
