"""The CPU engine: one model per thread, one kernel call between two evaluations."""

from __future__ import annotations

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines.cpu.compile import check_compiler
from makemore.engines.cpu.memory import make_soft_targets
from makemore.engines.cpu.slot import Slot, number_contexts
from makemore.engines.threads import ThreadEngine

__all__ = ["CpuEngine", "Slot"]


class CpuEngine(ThreadEngine):
    """Trains up to `capacity` models at once, each in its own thread.

    The threads run in parallel because the kernel releases the GIL. It does not call BLAS, so no
    threads of another library compete with them.

    Args:
        corpus: the train and dev splits.
        capacity: number of models to train at once; one per core is best.

    Raises:
        UserError: the environment turns numba's compiler off.
    """

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        check_compiler()
        super().__init__(capacity)
        self._corpus = corpus
        # `number_contexts` of the train split, by block size.
        self._context_numbers: dict[int, np.ndarray] = {}
        self._soft = make_soft_targets(corpus.teacher, len(corpus.vocab))

    def _make_slot(self, number: int, config: Config) -> Slot:
        block_size = config.block_size
        if block_size not in self._context_numbers:
            self._context_numbers[block_size] = number_contexts(self._corpus.train, block_size)
        return Slot(config, self._corpus, self._context_numbers[block_size], self._soft)
