"""The teacher of a distillation: a model from a file, and the words that are sampled from it."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from experiments.retraining.results import TRAIN_AND_DEV
from makemore.counts import list_words
from makemore.data import Corpus, Examples
from makemore.ensemble import Trained, load_trained
from makemore.errors import UserError
from makemore.model import Predictor
from makemore.sampling import sample_words
from makemore.teacher import Teacher


class Remembering:
    """A model that predicts each context once, and then remembers the logits.

    Sampled words share most of their contexts, and `Teacher.of` needs the same ones again.
    """

    def __init__(self, model: Predictor) -> None:
        self._model = model
        self._known: dict[bytes, np.ndarray] = {}

    @property
    def block_size(self) -> int:
        """Characters of context that the model needs."""
        return self._model.block_size

    def is_finite(self) -> bool:
        """Return whether all weights are finite."""
        return self._model.is_finite()

    @torch.no_grad()
    def __call__(self, X: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, block_size) int64."""
        keys = [context.tobytes() for context in X.numpy()]
        new = {key: row for row, key in enumerate(keys) if key not in self._known}
        if new:
            logits = self._model(X[list(new.values())]).numpy()
            self._known.update(zip(new, logits, strict=True))
        return torch.from_numpy(np.stack([self._known[key] for key in keys]))


def read_teacher(path: Path, corpus: Corpus) -> Trained:
    """Read an ensemble or a checkpoint that can teach the train words of a corpus.

    Raises:
        UserError: it is neither, it was trained on other words, or the dev words were among them.
    """
    trained = load_trained(path)
    words = trained.metadata.get("corpus", {})
    if words.get("sha256", corpus.sha256) != corpus.sha256:
        raise UserError(
            f"{path}: was trained on the words of {words.get('source', 'another file')} (sha256 "
            f"{words['sha256'][:12]}), not on those of {corpus.source} (sha256 "
            f"{corpus.sha256[:12]}), so it may know the dev words; give its file with --names."
        )
    if trained.metadata.get("trained_on") == TRAIN_AND_DEV:
        raise UserError(
            f"{path}: was trained on the dev words too, so the dev loss would measure nothing; "
            "give a model that was trained on train alone."
        )
    if trained.vocab.symbols != corpus.vocab.symbols:
        theirs = "".join(trained.vocab.symbols[1:])
        raise UserError(
            f"{path}: knows the characters {theirs!r}, but {corpus.source} has "
            f"{''.join(corpus.vocab.symbols[1:])!r}; give its file with --names."
        )
    return trained


def teach(
    corpus: Corpus, path: Path, trained: Trained, weight: float, sampled: int, seed: int
) -> Corpus:
    """Return the corpus with a teacher; words sampled from it join the train words.

    The sampled words show how the teacher predicts contexts that it was not trained on (Bucila,
    Caruana & Niculescu-Mizil 2006, "Model compression"). Its probabilities after train contexts are
    those of a model that has seen the targets.

    Args:
        path: the teacher's file.
        trained: its content.
        weight: of the soft targets, 0 to 1.
        sampled: number of words to sample.
        seed: of the sampling.
    """
    model = Remembering(trained.model)
    words = list_words(corpus.train, corpus.vocab)
    words += sample_words(model, corpus.vocab, sampled, seed=seed)
    extended = dataclasses.replace(corpus, train=Examples.of(words, corpus.vocab))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    teacher = Teacher.of(model, extended, weight, path.name, digest)
    return dataclasses.replace(extended, teacher=teacher)
