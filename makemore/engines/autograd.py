"""The autograd engine: trains any torch module, one model per thread; the reference engine.

On a GPU each slot has its own CUDA stream (not run on a GPU).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.dropout import seed_dropout
from makemore.engines.base import (
    EngineFailed,
    Outcome,
    TrainResult,
)
from makemore.engines.threads import ThreadEngine, ThreadSlot
from makemore.errors import ModelTooLarge
from makemore.evaluation import mean_loss
from makemore.model import MLP
from makemore.model_class import describe_error
from makemore.models import ModelClass, build, count_params, wrap
from makemore.schedule import averaging_at, lr_at

OPTIMIZERS = {"sgd": torch.optim.SGD, "adamw": torch.optim.AdamW}
STEPS_PER_LOOK = 100  # steps between two looks at the loss, which a GPU has to wait for
CPU = torch.device("cpu")


class AutogradEngine(ThreadEngine):
    """Trains up to `capacity` models of one class at once, each in its own thread.

    Args:
        corpus: the train and dev splits.
        capacity: number of models to train at once; one per core is best.
        model: the class of the models.
        devices: the slots take them in turn.
    """

    def __init__(
        self,
        corpus: Corpus,
        capacity: int,
        model: ModelClass = MLP,
        devices: Sequence[torch.device] = (CPU,),
    ) -> None:
        # The slots are the parallelism. On small tensors, threads of torch wait for each other.
        super().__init__(capacity, partial(torch.set_num_threads, 1))
        self._corpus = corpus
        self._model = model
        self._devices = devices

    def _make_slot(self, number: int, config: Config) -> AutogradSlot:
        device = self._devices[number % len(self._devices)]
        with self._reporting():
            return AutogradSlot(config, self._corpus, self._model, device)

    def _train(self, slot: ThreadSlot) -> Outcome | None:
        try:
            with self._reporting():
                return super()._train(slot)
        except EngineFailed as error:
            return error

    @contextmanager
    def _reporting(self) -> Iterator[None]:
        """Raise an error of the user's code as EngineFailed, which ends one trial only."""
        try:
            yield
        except (MemoryError, ModelTooLarge):
            raise
        except Exception as error:
            if self._model is MLP:
                raise
            raise EngineFailed(describe_error(self._model, error)) from error


class AutogradSlot(ThreadSlot):
    """A model with its optimizer's state, step count and history.

    Buffers belong to the model: they are kept with its best weights. An average of the weights has
    the average of the buffers: the statistics of a batch normalisation fit the weights of their
    step, so their averages fit the averaged weights. Integers, such as counts, are copied.

    Args:
        config: the model and its training.
        corpus: the train and dev splits.
        model: the class of the model.
        device: where it is trained.

    Attributes:
        model: the module with the current parameters.
        average: the module to evaluate and keep; `model` itself if the config has no average.
        The others are those of `ThreadSlot`.
    """

    steps_per_call = STEPS_PER_LOOK

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        model: ModelClass = MLP,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(config)
        self.corpus = corpus
        self._device = device
        self._new = partial(build, model, config, len(corpus.vocab))
        self.model = self._new().to(device)
        self._dropout = seed_dropout(self.model, config.seed)
        self.average = self.model if config.ema == 0 else self._new().to(device)
        self._trained = [p for p in self.model.parameters() if p.requires_grad]
        self._optimizer = OPTIMIZERS[config.optimizer](
            self._trained, lr=config.lr, weight_decay=0.0
        )
        self._stream = _stream_after_now(device) if device.type == "cuda" else None
        self._best = _copy_state(self.model)
        self.model.train()

    def train(self) -> Outcome | None:
        """Train as `ThreadSlot.train`, in the slot's stream.

        Raises:
            MemoryError: the device is full.
        """
        try:
            with nullcontext() if self._stream is None else torch.cuda.stream(self._stream):
                return super().train()
        except RuntimeError as error:
            # The types of torch: OutOfMemoryError of a GPU, a plain RuntimeError of the CPU.
            if isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error):
                raise MemoryError from None
            raise

    def run(self, n_steps: int) -> float:
        """Train n steps, fewer if stopped; return the sum of their losses in nats."""
        steps = np.arange(self.steps_done, self.steps_done + n_steps)
        rates = lr_at(self.config, steps).tolist()
        weights = averaging_at(self.config, steps).tolist()
        total = torch.zeros((), device=self._device)
        for lr, weight in zip(rates, weights, strict=True):
            if self.stop[0]:
                break
            total += self._step(lr, weight)
        return float(total)

    def _step(self, lr: float, weight: float) -> Tensor:
        """Train one step and return the loss of its minibatch.

        Args:
            lr: learning rate.
            weight: of the new parameters in their average.
        """
        loss, objective = self.losses_of_batch()
        self._optimizer.zero_grad()
        objective.backward()
        self._optimizer.param_groups[0]["lr"] = lr
        with torch.no_grad():
            if self.config.weight_decay > 0:
                for parameter in self._trained:
                    parameter.mul_(1 - lr * self.config.weight_decay)
            self._optimizer.step()
            if self.average is not self.model:
                _average(self.average, self.model, weight)
        self.steps_done += 1
        return loss.detach()

    def losses_of_batch(self) -> tuple[Tensor, Tensor]:
        """Return the next batch's loss of the true targets, and the one to minimise.

        They are equal without a teacher.
        """
        config = self.config
        rows = batch_rows(config.seed, self.steps_done, config.batch_size, len(self.corpus.train))
        X, Y = self.corpus.train.tensors(config.block_size, rows)
        self._dropout.start(self.steps_done)
        logits = self.model(X.to(self._device))
        loss = F.cross_entropy(logits, Y.to(self._device))
        teacher = self.corpus.teacher
        if teacher is None:
            return loss, loss
        targets = torch.from_numpy(teacher.targets(rows, Y.numpy()))
        return loss, F.cross_entropy(logits, targets.to(self._device))

    def evaluate(self) -> float:
        """Return the exact mean loss over the dev split; nan if `stop` was set meanwhile."""
        loss = mean_loss(
            self.average.eval(),
            self.corpus.dev,
            self.config.block_size,
            device=self._device,
            stopped=lambda: bool(self.stop[0]),
        )
        self.model.train()
        return loss

    def keep(self) -> None:
        """Keep the evaluated weights: they are the best so far."""
        self._best = _copy_state(self.average)

    def result(self) -> TrainResult:
        """Return the model with its best weights, and its history."""
        module = self._new()  # on the CPU, with the user's own dropout layers
        module.load_state_dict(self._best)
        model = wrap(module, self.config, len(self.corpus.vocab))
        return TrainResult(model, tuple(self.history), count_params(module), self.seconds)


def _stream_after_now(device: torch.device) -> torch.cuda.Stream:
    """Return a new stream that begins after the work given to the current one."""
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return stream


def _copy_state(module: nn.Module) -> dict[str, Tensor]:
    # To the CPU, because that copy waits; another stream of a GPU may change the weights next.
    return {name: tensor.to("cpu", copy=True) for name, tensor in module.state_dict().items()}


def _average(average: nn.Module, module: nn.Module, weight: float) -> None:
    """Move the parameters and buffers of an average towards those of a module."""
    for mean, now in zip(
        [*average.parameters(), *average.buffers()],
        [*module.parameters(), *module.buffers()],
        strict=True,
    ):
        if mean.is_floating_point():
            mean.lerp_(now, weight)
        else:
            mean.copy_(now)
