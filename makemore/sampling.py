"""Sampling of new words from a model, and scores that say how likely a word is."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from makemore.data import Examples
from makemore.errors import UserError
from makemore.model import Predictor
from makemore.words import Vocab

MAX_LENGTH = 100  # characters of a word; an untrained model may never predict the boundary
CHUNK = 4096  # words sampled, or examples scored, at once


def sample_words(
    model: Predictor,
    vocab: Vocab,
    n: int,
    *,
    seed: int,
    temperature: float = 1.0,
    prefix: str = "",
    max_length: int = MAX_LENGTH,
) -> list[str]:
    """Sample words character by character until the boundary, in batches.

    The same arguments give the same words, and a longer list begins with the shorter one.

    Args:
        model: the trained model.
        vocab: the vocabulary that the model was trained with.
        n: number of words, at least 0.
        seed: of a generator that only this call uses.
        temperature: divides the logits; below 1 the words become more usual, above 1 less usual.
        prefix: the beginning of every word.
        max_length: maximum characters of a word, the prefix included; longer words are cut.

    Raises:
        UserError: an argument is out of range, the prefix holds the boundary or a character that
            is not in the vocabulary, or the model's weights are not finite.
    """
    if n < 0:
        raise UserError(f"n must be at least 0, but got {n=}.")
    if not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be greater than 0 and finite, but got {temperature=}.")
    if vocab.boundary in prefix:
        raise UserError(
            f"prefix {prefix!r} holds {vocab.boundary!r}, which ends a word; leave it out."
        )
    if max_length < max(1, len(prefix)):
        raise UserError(
            "max_length must be at least 1 and at least the length of the prefix, "
            f"but got {max_length=}, {prefix=}."
        )
    if not model.is_finite():
        raise UserError(
            "the model's weights are not finite, so it cannot be sampled; train it with a lower lr."
        )

    codes = vocab.encode(prefix)
    generator = torch.Generator().manual_seed(seed)
    words: list[str] = []
    for start in range(0, n, CHUNK):
        # Each word has its own row of draws, so it does not depend on the number of words.
        draws = torch.rand(
            (min(CHUNK, n - start), max_length), generator=generator, dtype=torch.float64
        )
        words += [prefix + vocab.decode(row) for row in _continue(model, codes, draws, temperature)]
    return words


@torch.no_grad()
def _continue(
    model: Predictor, prefix: list[int], draws: Tensor, temperature: float
) -> list[list[int]]:
    """Return the codes that follow the prefix in each word.

    Args:
        model: the trained model.
        prefix: P codes.
        draws: (n, max_length) float64, uniform in [0, 1); each picks a code by inversion of the
            distribution function.
        temperature: divides the logits.
    """
    n, max_length = draws.shape
    T = model.block_size
    P = len(prefix)
    rows = torch.zeros((n, T + max_length), dtype=torch.int64)  # T boundaries, then the word
    rows[:, T : T + P] = torch.tensor(prefix, dtype=torch.int64)

    unfinished = torch.arange(n)
    for t in range(P, max_length):
        logits = model(rows[unfinished, t : t + T]).double()  # (n, V)
        # Subtract the highest logit before the division, so no temperature overflows.
        weights = torch.exp((logits - logits.amax(1, keepdim=True)) / temperature)
        totals = weights.cumsum(1)
        picks = draws[unfinished, t, None] * totals[:, -1:]  # (n, 1)
        codes = torch.searchsorted(totals, picks, right=True)[:, 0]
        rows[unfinished, T + t] = codes
        unfinished = unfinished[codes != 0]
        if not len(unfinished):
            break

    letters = rows[:, T + P :]
    lengths = (letters != 0).int().cumprod(1).sum(1)
    return [row[:length] for row, length in zip(letters.tolist(), lengths.tolist(), strict=True)]


@torch.no_grad()
def score_words(model: Predictor, vocab: Vocab, words: Sequence[str]) -> np.ndarray:
    """Return the mean cross-entropy of each word in nats per character, its end included.

    The log-likelihood of a word is -score * (len(word) + 1). The mean of the scores over a split,
    weighted by len(word) + 1, is the loss of the split.

    Returns:
        (len(words),) float64.

    Raises:
        UserError: a word holds a character that is not in the vocabulary.
    """
    examples = Examples.of(words, vocab)
    losses = np.empty(len(examples))
    for start in range(0, len(examples), CHUNK):
        X, Y = examples.tensors(model.block_size, slice(start, start + CHUNK))
        losses[start : start + CHUNK] = torch.nn.functional.cross_entropy(
            model(X).double(), Y, reduction="none"
        )
    if not len(words):
        return losses

    lengths = np.fromiter((len(word) + 1 for word in words), np.int64, len(words))
    return np.add.reduceat(losses, np.cumsum(lengths) - lengths) / lengths
