"""Made-up teachers for the tests: an untrained net whose probabilities are uneven."""

from __future__ import annotations

import dataclasses

from makemore.config import Config
from makemore.data import Corpus
from makemore.model import MLP
from makemore.teacher import Teacher

BLOCK_SIZE = 4  # longer than the contexts of some students, and shorter than those of others


def made_up_model(corpus: Corpus) -> MLP:
    """Return an untrained net of the corpus' vocabulary."""
    return MLP(Config(block_size=BLOCK_SIZE, n_hidden=8, seed=7), len(corpus.vocab))


def taught(corpus: Corpus, weight: float) -> Corpus:
    """Return the corpus with a made-up teacher."""
    teacher = Teacher.of(made_up_model(corpus), corpus, weight, "made up", "0" * 64)
    return dataclasses.replace(corpus, teacher=teacher)
