"""The interface between engines and what drives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from makemore.config import Config
from makemore.model import MLP

# Nats. Standard normal weights begin near 0.8 * n_hidden ** 0.5 * (ln V) ** 0.5: 28 at the lecture's size, 60 at 1,024.
DIVERGED_LOSS = 300.0


@dataclass(frozen=True)
class EvalPoint:
    """The state of a model at one evaluation. Losses are mean cross-entropy in nats per character.

    Attributes:
        step: optimizer steps done.
        train_loss: mean over the minibatches since the evaluation before.
        dev_loss: exact mean over the whole dev split.
        lr: learning rate of the last step.
    """

    step: int
    train_loss: float
    dev_loss: float
    lr: float


class Diverged(ArithmeticError):
    """A loss was not finite, or out of all proportion: the learning rate is too high for this model.

    Attributes:
        step: optimizer steps done when it was seen.
        loss: the loss, in nats.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"training diverged: loss {loss} at step {step}; lower the learning rate.")
        self.step, self.loss = step, loss


class EngineFailed(RuntimeError):
    """What a model trained on failed (out of memory, a lost device); the model itself may be trained again."""


Outcome = EvalPoint | Diverged | EngineFailed


@dataclass(frozen=True)
class TrainResult:
    """What training left.

    Attributes:
        model: an MLP that holds the weights of `best`, on the CPU (the initial weights if nothing was evaluated).
        history: every evaluation in order.
        n_params: number of trained values.
        seconds: time spent in training steps and evaluations of this model.
    """

    model: MLP
    history: tuple[EvalPoint, ...]
    n_params: int
    seconds: float

    @property
    def best(self) -> EvalPoint:
        """The evaluation of lowest dev loss, the earliest of equals.

        Raises:
            ValueError: nothing was evaluated.
        """
        if not self.history:
            raise ValueError("the model was never evaluated; let it train for one eval_interval.")
        return min(self.history, key=lambda point: point.dev_loss)


@dataclass(frozen=True)
class Envelope:
    """The largest model that a batched engine can hold; smaller ones stand in it padded by zeros.

    Attributes:
        direct: whether room is kept for direct connections.
        dropout: whether dropout is drawn at all.
        ema: whether room is kept for averages of the weights.
    """

    block_size: int
    n_embd: int
    n_hidden: int
    batch_size: int
    direct: bool = False
    dropout: bool = False
    ema: bool = False

    @classmethod
    def around(cls, *configs: Config) -> Envelope:
        """The smallest envelope that holds all of these."""
        sizes = {
            name: max(getattr(c, name) for c in configs)
            for name in ("block_size", "n_embd", "n_hidden", "batch_size")
        }
        return cls(
            **sizes,
            direct=any(c.direct for c in configs),
            dropout=any(c.dropout > 0 for c in configs),
            ema=any(c.ema > 0 for c in configs),
        )


class Engine(Protocol):
    """Slots that train models, each on its own clock.

    A model's result depends on its config, the corpus and the kind of device only: not on its slot, on its neighbours
    or on when it was admitted. Engines are driven from one thread.
    """

    @property
    def capacity(self) -> int:
        """How many models can be trained at once. May shrink when the device runs out of memory."""

    def admit(self, config: Config) -> int:
        """Put a fresh model into a free slot and return the slot.

        Raises:
            ValueError: the config does not fit this engine; one sentence.
            RuntimeError: no slot is free.
        """

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train until at least one model is at its next evaluation; return (slot, outcome) of those that are.

        Evaluations fall on multiples of the config's eval_interval and on max_steps. A model that is at max_steps,
        diverged or failed stays in its slot, and does not train, until it is removed. Returns an empty list when no
        model has steps left.
        """

    def remove(self, slot: int) -> TrainResult:
        """Free a slot, whatever the state of its model, and return what it holds so far."""

    def close(self) -> None:
        """Stop what is running within a second and free everything; the engine cannot be used again."""


def next_stop(config: Config, step: int) -> int:
    """The step of the next evaluation after `step`."""
    return min(config.max_steps, (step // config.eval_interval + 1) * config.eval_interval)


def check_finite(step: int, train_loss: float, dev_loss: float) -> None:
    """Raise Diverged when a loss is inf or nan, or the dev loss beyond what any model starts from.

    tanh saturates, so a learning rate that is far too high seldom ends in inf: the loss stays at thousands of nats.
    """
    for loss in (train_loss, dev_loss):
        if not math.isfinite(loss) or dev_loss > DIVERGED_LOSS:
            raise Diverged(step, dev_loss if math.isfinite(train_loss) else train_loss)
