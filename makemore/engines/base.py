"""The interface between engines and the code that drives them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from makemore.config import Config
from makemore.models import Model

# Nats. A dev loss above this is divergence. An untrained model with standard normal weights is at
# about 0.8 * n_hidden ** 0.5 * (ln V) ** 0.5: 28 at the lecture's size, 60 for 1,024 hidden units.
DIVERGED_LOSS = 300.0
RETURN_AFTER = 1.0  # seconds after which `Engine.advance` returns even without an outcome


@dataclass(frozen=True)
class EvalPoint:
    """The state of a model at one evaluation. Losses are mean cross-entropy in nats per character.

    Attributes:
        step: optimizer steps done.
        minibatch_loss: mean over the minibatches since the previous evaluation, with dropout. The
            weights change meanwhile, so it is not the train loss of the weights at this step. It
            uses the true targets, also if a teacher's soft targets are trained on.
        dev_loss: exact mean over the whole dev split.
        lr: learning rate of the last step.
    """

    step: int
    minibatch_loss: float
    dev_loss: float
    lr: float


class Diverged(ArithmeticError):
    """A loss was inf, nan or above DIVERGED_LOSS: the learning rate is too high for this model.

    Attributes:
        step: optimizer steps done when the loss was computed.
        loss: the loss, in nats.
    """

    def __init__(self, step: int, loss: float) -> None:
        super().__init__(f"training diverged: loss {loss} at step {step}; lower the learning rate.")
        self.step = step
        self.loss = loss

    def __reduce__(self) -> tuple[type[Diverged], tuple[int, float]]:
        return type(self), (self.step, self.loss)


class EngineFailed(RuntimeError):
    """The device failed, not the model: it can be trained again."""


class OutOfMemory(EngineFailed):
    """The model does not fit into the device's memory; trained again, it would not fit either."""


class HostLost(EngineFailed):
    """The process or machine that trained a model is gone; neither model nor engine is at fault."""


Outcome = EvalPoint | Diverged | EngineFailed


@dataclass(frozen=True)
class TrainResult:
    """The result of training one model.

    Attributes:
        model: on the CPU, with the weights of `best`, or the initial weights if the model was never
            evaluated; an MLP, or a Network of the user's class.
        history: every evaluation in order.
        n_params: number of trained values.
        seconds: time spent in training steps and evaluations of this model.
    """

    model: Model
    history: tuple[EvalPoint, ...]
    n_params: int
    seconds: float

    @property
    def best(self) -> EvalPoint:
        """The evaluation with the lowest dev loss; the earliest one if several are equal.

        Raises:
            ValueError: the model was never evaluated.
        """
        if not self.history:
            raise ValueError("the model was never evaluated; let it train for one eval_interval.")
        return min(self.history, key=lambda point: point.dev_loss)


@dataclass(frozen=True)
class Envelope:
    """The largest model that a batched engine can hold; smaller models are padded with zeros.

    Attributes:
        block_size, n_embd, n_hidden, batch_size: the largest value of the `Config` field.
        direct: whether memory is reserved for direct connections.
        dropout: whether models may use dropout.
        ema: whether memory is reserved for averages of the weights.
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
        """Return the smallest envelope that holds models of all these configs."""
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
    """Slots that train models, each with its own step count.

    A model's result depends only on its config, the corpus (with its teacher, if it has one) and
    the kind of device. It does not
    depend on its slot, on other models, or on the time of admission. Call an engine from one thread
    only.

    An engine may consist of several hosts (`Fleet`), which come and go while it trains.
    """

    @property
    def capacity(self) -> int:
        """Number of models that can be trained at once.

        It shrinks when the device is full or a host is lost, and grows when a host joins. It is 0
        while a fleet waits for its first host.
        """

    def admit(self, config: Config) -> int:
        """Put a new model into a free slot and return the number of the slot.

        A fleet does not wait for its hosts, so it reports `ModelTooLarge` as an outcome.

        Raises:
            ModelTooLarge: this machine has too little memory for the model.
            EngineFailed: the class of a user's model raised an error.
            ValueError: the config is larger than the engine's envelope.
            RuntimeError: no slot is free, or the engine is closed.
        """

    def advance(self) -> list[tuple[int, Outcome]]:
        """Train until at least one model reaches its next evaluation, or for about RETURN_AFTER.

        Evaluations are at multiples of the config's eval_interval and at max_steps. A model that
        has reached max_steps, diverged or failed does not train further, but keeps its slot until
        it is removed.

        Returns:
            (slot, outcome) of each model that reached an evaluation, diverged or failed, in the
            order of arrival; an empty list if there is nothing to report yet, and at once if no
            model has steps left.
        """

    def remove(self, slot: int) -> TrainResult:
        """Free a slot at any time and return the result of its model so far.

        Raises:
            HostLost: the weights are lost with their host; the slot is free all the same.
        """

    def discard(self, slot: int) -> None:
        """Free a slot at any time, without a result and without waiting for a busy host."""

    def close(self) -> None:
        """Stop training within a second and free all memory; the engine cannot be used again."""


def next_stop(config: Config, step: int) -> int:
    """Return the step of the first evaluation after `step`."""
    return min(config.max_steps, (step // config.eval_interval + 1) * config.eval_interval)


def check_finite(step: int, minibatch_loss: float, dev_loss: float) -> None:
    """Raise Diverged if a loss is inf or nan, or if the dev loss is above DIVERGED_LOSS.

    The limit is needed because tanh saturates: a learning rate that is far too high rarely gives
    inf, but a loss of thousands of nats.

    Args:
        step: optimizer steps done.
        minibatch_loss, dev_loss: in nats per character.
    """
    for loss in (minibatch_loss, dev_loss):
        if not math.isfinite(loss) or dev_loss > DIVERGED_LOSS:
            raise Diverged(step, dev_loss if math.isfinite(minibatch_loss) else minibatch_loss)
