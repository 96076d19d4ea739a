"""A slot of the CPU engine: one model, trained from one evaluation to the next."""

from __future__ import annotations

import os

import numpy as np

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.draws import dropout_threshold, step_keys, stream_key
from makemore.engines.base import (
    TrainResult,
)
from makemore.engines.cpu import kernel
from makemore.engines.cpu.evaluation import Evaluator
from makemore.engines.cpu.memory import (
    Sizes,
    SoftTargets,
    make_batch,
    make_soft_targets,
    make_tables,
    make_weights,
    make_work,
    read_model,
    sizes_of,
    write_model,
    zeros,
)
from makemore.engines.threads import ThreadSlot
from makemore.errors import ModelTooLarge
from makemore.model import MLP, n_params
from makemore.schedule import averaging_at, lr_at
from makemore.windows import number_windows, rank

STEPS_PER_CALL = 1 << 16  # learning rates and keys of a kernel call are computed before it


def check_memory(config: Config, sizes: Sizes) -> None:
    """Check before allocation that the model fits into this machine's memory.

    Linux overcommits: the allocation itself would succeed, and the process would be killed when it
    first used the memory.

    Raises:
        ModelTooLarge: training the model takes more memory than the machine has.
    """
    if not hasattr(os, "sysconf"):  # on Windows an allocation that is too large fails
        return
    T, E, H, V = sizes
    tables = T * min(V, config.batch_size) * (E + H + V)
    n_bytes = 4 * (
        (5 + (config.ema > 0)) * n_params(config, V) + 4 * config.batch_size * (H + V) + tables
    )
    if n_bytes > os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"):
        raise ModelTooLarge(
            f"training with n_hidden {H:,} and batch_size {config.batch_size:,} takes "
            f"{n_bytes / 2**30:,.0f} GiB, more than this machine's memory; "
            "lower n_hidden, batch_size, n_embd or block_size."
        )


def number_contexts(examples: Examples, block_size: int) -> np.ndarray:
    """Number the distinct contexts of a split from 0 on; takes 5 to 50 ms for the embedded names.

    Returns:
        (N,) int32, the number of each example's context.
    """
    numbers, bound = number_windows(examples.stream, examples.positions, -block_size, 0)
    return rank(numbers, bound)[0].astype(np.int32)


class Slot(ThreadSlot):
    """A model with its optimizer's state, step count and history.

    All memory is allocated in the constructor and none during training.

    Args:
        config: the model and its training.
        corpus: the train and dev splits.
        numbers: `number_contexts` of the train split, if the caller has it already.
        soft: `make_soft_targets` of the corpus' teacher, if the caller has it already.

    Attributes:
        weights, gradient: the current parameters, and their gradient of the last step.
        eval_weights: the parameters to evaluate and keep: the average of the weights if the config
            has one, else `weights` itself.
        The others are those of `ThreadSlot`.
    """

    steps_per_call = STEPS_PER_CALL

    def __init__(
        self,
        config: Config,
        corpus: Corpus,
        numbers: np.ndarray | None = None,
        soft: SoftTargets | None = None,
    ) -> None:
        super().__init__(config)
        self.model = MLP(config, len(corpus.vocab))
        self._sizes = sizes_of(config, len(corpus.vocab))
        check_memory(config, self._sizes)

        self._allocate_parameters()
        if numbers is None:
            numbers = number_contexts(corpus.train, config.block_size)
        self._examples = corpus.train.stream_uint16, corpus.train.positions, numbers
        self._soft = soft or make_soft_targets(corpus.teacher, len(corpus.vocab))
        # With dropout equal contexts have different hidden units, so they are not merged.
        n_contexts = 0 if config.dropout > 0 else int(numbers.max()) + 1
        self._batch = make_batch(config.batch_size, n_contexts, corpus.teacher is not None)
        self._tables = make_tables(self._sizes, config.batch_size, config.direct)
        self._work = make_work(self._sizes, config.batch_size, config.dropout > 0)
        self._evaluator = Evaluator(self._sizes, config.direct, corpus.dev)

        # Compile the kernel in the main thread, where Ctrl-C works; `stop` is set, so both calls
        # return at once.
        self.stop[0] = 1
        self.run(0)
        self.evaluate()
        self.stop[0] = 0

    def _allocate_parameters(self) -> None:
        """Allocate the parameters, their gradient, average and best values, and AdamW's moments."""
        config = self.config
        self.weights = make_weights(self._sizes, config.direct)
        self.gradient = make_weights(self._sizes, config.direct)
        read_model(self.weights, self.model)
        if config.ema > 0:
            self.eval_weights = make_weights(self._sizes, config.direct)
            self._average = self.eval_weights.flat
        else:
            self.eval_weights = self.weights
            self._average = zeros(0)
        n_moments = self.weights.flat.size if config.optimizer == "adamw" else 0
        self._m = zeros(n_moments)
        self._v = zeros(n_moments)
        self._best = self.weights.flat.copy()

    def run(self, n_steps: int) -> float:
        """Train n steps, fewer if stopped or diverged; return the sum of their losses in nats."""
        c = self.config
        steps = np.arange(self.steps_done, self.steps_done + n_steps)
        plan = kernel.Plan(
            self.steps_done,
            lr_at(c, steps),
            step_keys(stream_key(c.seed, "batch"), steps),
            step_keys(stream_key(c.seed, "dropout"), steps),
            np.uint32(dropout_threshold(c.dropout)),
            np.float32(1 / (1 - c.dropout)),
            np.float32(c.weight_decay),
            averaging_at(c, steps),
        )
        steps_done, losses = kernel.train(
            self.stop, *self._examples, self._sizes, plan, self.weights, self.gradient,
            self._m, self._v, self._average, self._batch, self._tables, self._work,
            self._soft,
        )  # fmt: skip
        self.steps_done += steps_done
        return losses

    def evaluate(self) -> float:
        """Return the exact mean loss over the dev split; nan if `stop` was set meanwhile."""
        return self._evaluator(self.eval_weights, self.stop)

    def keep(self) -> None:
        """Keep the evaluated weights: they are the best so far."""
        self._best[:] = self.eval_weights.flat

    def result(self) -> TrainResult:
        """Return the model with its best weights, and its history."""
        self.weights.flat[:] = self._best
        write_model(self.weights, self.model)
        return TrainResult(self.model, tuple(self.history), self.model.flat.numel(), self.seconds)
