"""Made-up teachers for the tests: an untrained net whose probabilities are uneven."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.model import MLP
from makemore.teacher import Teacher
from makemore.words import Vocab

BLOCK_SIZE = 4  # longer than the contexts of some students, and shorter than those of others


class MadeUpModel:
    """An untrained net as a `Predictor`; counts the contexts that it predicts."""

    def __init__(self, vocab: Vocab, block_size: int = BLOCK_SIZE) -> None:
        self.vocab = vocab
        self.block_size = block_size
        self.n_predicted = 0
        self._net = MLP(Config(block_size=block_size, n_hidden=8, seed=7), len(vocab))

    @torch.no_grad()
    def probabilities(self, contexts: np.ndarray) -> np.ndarray:
        self.n_predicted += len(contexts)
        return self._net(torch.from_numpy(contexts.astype(np.int64))).softmax(1).numpy()


def taught(corpus: Corpus, weight: float) -> Corpus:
    """Return the corpus with a made-up teacher."""
    teacher = Teacher.of(MadeUpModel(corpus.vocab), corpus, weight, "made up", "0" * 64)
    return dataclasses.replace(corpus, teacher=teacher)
