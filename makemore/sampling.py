"""New words from a model, and how likely it finds a word."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from makemore.data import Examples
from makemore.errors import UserError
from makemore.model import MLP
from makemore.words import BOUNDARY, Vocab

MAX_LENGTH = 100  # characters of a word; an untrained model may not find an end
CHUNK = 4096  # words sampled, or examples scored, at once


def sample_words(
    model: MLP,
    vocab: Vocab,
    n: int,
    *,
    seed: int,
    temperature: float = 1.0,
    prefix: str = "",
    max_length: int = MAX_LENGTH,
) -> list[str]:
    """Draw words character by character until the boundary, many at once; the same arguments give the same words.

    The first words of a longer list are those of a shorter one. `score_words` tells how likely the model finds them.

    Args:
        n: number of words, at least 0.
        seed: of a generator of this call's own.
        temperature: divides the logits; below 1 the words become more usual, above 1 less.
        prefix: what every word begins with.
        max_length: a word, its prefix included, ends after this many characters even if the model would go on.

    Raises:
        UserError: an argument is out of range, the prefix holds a character that the vocabulary lacks or the
            boundary, or the model's weights are not finite.
    """
    if n < 0:
        raise UserError(f"n must be at least 0, but got {n=}.")
    if not 0 < temperature < float("inf"):
        raise UserError(f"temperature must be greater than 0 and finite, but got {temperature=}.")
    if BOUNDARY in prefix:
        raise UserError(f"prefix {prefix!r} holds {BOUNDARY!r}, which ends a word; leave it out.")
    if max_length < max(1, len(prefix)):
        raise UserError(
            f"max_length must be at least 1 and hold the prefix, but got {max_length=}, {prefix=}."
        )
    if not torch.isfinite(model.flat).all():
        raise UserError(
            "the model's weights are not finite, so it cannot be sampled; train it with a lower lr."
        )
    codes = vocab.encode(prefix)
    generator = torch.Generator().manual_seed(seed)
    words: list[str] = []
    for start in range(0, n, CHUNK):
        # A row of draws a word, so that a word does not depend on how many are drawn with it.
        draws = torch.rand(
            (min(CHUNK, n - start), max_length), generator=generator, dtype=torch.float64
        )
        words += [prefix + vocab.decode(row) for row in _continue(model, codes, draws, temperature)]
    return words


@torch.no_grad()
def _continue(model: MLP, prefix: list[int], draws: Tensor, temperature: float) -> list[list[int]]:
    """The codes that follow the prefix in each word, by inverting the distribution at draws (n, max_length)."""
    n, max_length = draws.shape
    T, P = model.config.block_size, len(prefix)
    rows = torch.zeros((n, T + max_length), dtype=torch.int64)  # T boundaries, then the word
    rows[:, T : T + P] = torch.tensor(prefix, dtype=torch.int64)
    going = torch.arange(n)  # words that have not ended
    for t in range(P, max_length):
        logits = model(rows[going, t : t + T]).double()  # (n, V)
        # The highest logit becomes 0 before the division, which no temperature can make overflow.
        weights = torch.exp((logits - logits.amax(1, keepdim=True)) / temperature)
        totals = weights.cumsum(1)
        codes = torch.searchsorted(totals, draws[going, t, None] * totals[:, -1:], right=True)[:, 0]
        rows[going, T + t] = codes
        going = going[codes != 0]
        if not len(going):
            break
    letters = rows[:, T + P :]
    lengths = (letters != 0).int().cumprod(1).sum(1)
    return [row[:length] for row, length in zip(letters.tolist(), lengths.tolist(), strict=True)]


@torch.no_grad()
def score_words(model: MLP, vocab: Vocab, words: Sequence[str]) -> np.ndarray:
    """How unlikely each word is to the model: its mean cross-entropy in nats per character, its end included.

    Minus the score times (len(word) + 1) is the log-likelihood of the word. The mean over a split, weighted by
    len(word) + 1, is the split's loss.

    Returns:
        (len(words),) float64.

    Raises:
        UserError: a word holds a character that the vocabulary lacks.
    """
    examples = Examples.of(words, vocab)
    losses = np.empty(len(examples))
    for start in range(0, len(examples), CHUNK):
        X, Y = examples.tensors(model.config.block_size, slice(start, start + CHUNK))
        losses[start : start + CHUNK] = torch.nn.functional.cross_entropy(
            model(X).double(), Y, reduction="none"
        )
    lengths = np.fromiter((len(word) + 1 for word in words), np.int64, len(words))
    return np.add.reduceat(losses, np.cumsum(lengths) - lengths) / lengths if len(words) else losses
