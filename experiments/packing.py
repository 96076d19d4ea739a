"""Pack a model for the page: weights as integers of few bits, and a map of the embeddings.

The integers have as few bits as keep every next-character probability within TOLERANCE.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from makemore.checkpoint import Checkpoint
from makemore.data import Examples
from makemore.ensemble import Trained
from makemore.kneser_ney import KneserNey
from makemore.model import MLP
from makemore.sampling import sample_words

# Largest change of a probability on the sampled contexts. The page promises 1e-4 on all contexts.
TOLERANCE = 4e-5
MIN_BITS = 10
MAX_BITS = 24  # as exact as the 24 bits of a float32's significand
# The sample on which the tolerance is measured.
N_WORDS = 1000
N_CONTEXTS = 4096


@dataclass(frozen=True)
class Packed:
    """A model's weights as integers.

    Attributes:
        tensors: name, rows, columns and bits of each tensor, in the order of `integers`.
        integers: the weights row by row, highest bit first; each tensor starts at a whole byte.
            An integer q of b bits is the weight (q - 2^(b-1)) * scale of its row.
        scales: one scale per row of all tensors, float32, little-endian.
        bits: bits of each weight of a matrix.
        error: the largest change of a probability that was found.
    """

    tensors: list[dict[str, Any]]
    integers: bytes
    scales: bytes
    bits: int
    error: float


def contexts(trained: Trained | Checkpoint) -> torch.Tensor:
    """Return contexts of words that the model samples, typical ones and unusual ones.

    Returns:
        (n, block_size) int64, n at most N_CONTEXTS.
    """
    model = trained.model
    words = []
    for temperature in (1.0, 2.0):
        words += sample_words(model, trained.vocab, N_WORDS, seed=0, temperature=temperature)
    X, _ = Examples.of(words, trained.vocab).tensors(model.block_size)
    order = torch.randperm(len(X), generator=torch.Generator().manual_seed(0))
    return X[order[:N_CONTEXTS]]


@torch.no_grad()
def pack(model: MLP, X: torch.Tensor) -> Packed:
    """Convert the weights to integers of the fewest bits that keep the probabilities.

    Args:
        X: (n, T) int64 contexts on which the probabilities are compared.
    """
    weights = {
        name: np.atleast_2d(weight.detach().numpy()) for name, weight in model.named_parameters()
    }
    exact = model(X).double().softmax(1)
    rounded_model = MLP(model.config, model.vocab_size)

    for bits in range(MIN_BITS, MAX_BITS + 1):
        # The embedding and the biases are few, and an embedding's error is in every hidden unit.
        widths = {name: bits if name.startswith("W") else MAX_BITS for name in weights}
        rounded = {name: _round(weight, widths[name]) for name, weight in weights.items()}
        for name, parameter in rounded_model.named_parameters():
            q, scale = rounded[name]
            parameter.copy_(torch.from_numpy(q * scale.astype(np.float64)).view_as(parameter))
        error = float((rounded_model(X).double().softmax(1) - exact).abs().max())
        if error <= TOLERANCE:
            break

    tensors = [
        {"name": name, "rows": q.shape[0], "columns": q.shape[1], "bits": widths[name]}
        for name, (q, _) in rounded.items()
    ]
    integers = b"".join(_to_bytes(q, widths[name]) for name, (q, _) in rounded.items())
    scales = b"".join(scale.astype("<f4").tobytes() for _, scale in rounded.values())
    return Packed(tensors, integers, scales, bits, error)


def pack_counts(counts: KneserNey) -> dict[str, str | int]:
    """Return the n-grams and their counts as base64: two bytes a symbol, four bytes a count."""
    ngrams = base64.b64encode(counts.ngrams.astype("<u2").tobytes())
    numbers = base64.b64encode(counts.counts.astype("<u4").tobytes())
    return {
        "context": counts.block_size,
        "ngrams": ngrams.decode("ascii"),
        "counts": numbers.decode("ascii"),
    }


def _round(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Round weights (R, K) to integers between -(2^(bits-1) - 1) and 2^(bits-1) - 1.

    Returns:
        The integers (R, K) int64, and the scale of each row (R, 1) float32.
    """
    limit = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(limit)
    scale = np.where(scale == 0, np.float32(1), scale)
    integers = np.clip(np.rint(weight / scale.astype(np.float64)), -limit, limit)
    return integers.astype(np.int64), scale


def _to_bytes(q: np.ndarray, bits: int) -> bytes:
    """Return integers as `bits` bits each, highest bit first, shifted to be non-negative."""
    shifts = np.arange(bits - 1, -1, -1)
    unsigned = q.ravel() + 2 ** (bits - 1)
    return np.packbits(((unsigned[:, None] >> shifts) & 1).astype(np.uint8)).tobytes()


def principal_directions(C: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Project embeddings onto the two directions in which they vary most.

    Args:
        C: (V, E) embeddings.

    Returns:
        (V, 2) float64 coordinates, and each direction's share of the variance. The largest
        coordinate of a direction is positive.
    """
    centred = C.astype(np.float64) - C.mean(0, dtype=np.float64)
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    k = min(2, len(S))
    places = np.zeros((len(C), 2))
    places[:, :k] = U[:, :k] * S[:k]
    signs = np.sign(places[np.abs(places).argmax(0), [0, 1]])

    shares = np.zeros(2)
    shares[:k] = S[:k] ** 2 / max(float((S**2).sum()), 1e-300)
    return places * np.where(signs == 0, 1, signs), shares.tolist()
