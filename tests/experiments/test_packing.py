"""Weights as integers, and the map of the embeddings."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from experiments.packing import MAX_BITS, TOLERANCE, Packed, contexts, pack, principal_directions
from tests.experiments.synthetic import KINDS, make_checkpoint


def unpack(packed: Packed) -> dict[str, np.ndarray]:
    """Read the weights as the docstring of Packed describes."""
    weights = {}
    at = 0
    row = 0
    scales = np.frombuffer(packed.scales, "<f4")
    for tensor in packed.tensors:
        bits = tensor["bits"]
        n = tensor["rows"] * tensor["columns"]
        size = -(-n * bits // 8)
        whole = int.from_bytes(packed.integers[at : at + size], "big") >> (8 * size - n * bits)
        unsigned = [(whole >> (bits * (n - 1 - i))) & (2**bits - 1) for i in range(n)]
        q = (np.array(unsigned) - 2 ** (bits - 1)).reshape(tensor["rows"], tensor["columns"])
        weights[tensor["name"]] = q * scales[row : row + tensor["rows"], None]
        at += size
        row += tensor["rows"]
    assert (at, row) == (len(packed.integers), len(scales))
    return weights


@pytest.mark.parametrize("kind", KINDS)
def test_integers_reproduce_the_weights(kind: str) -> None:
    checkpoint = KINDS[kind]()

    packed = pack(checkpoint.model, contexts(checkpoint))

    weights = unpack(packed)
    for name, parameter in checkpoint.model.named_parameters():
        exact = np.atleast_2d(parameter.detach().numpy())
        bits = packed.bits if name[0] == "W" else MAX_BITS
        step = np.abs(exact).max(1, keepdims=True) / (2 ** (bits - 1) - 1)
        assert np.all(np.abs(weights[name] - exact) <= 0.5001 * step + 1e-30), name
    assert packed.error <= TOLERANCE and packed.bits < MAX_BITS


def test_larger_weights_get_more_bits() -> None:
    bits = []
    for gain in (1.0, 30.0):
        checkpoint = make_checkpoint(gain=gain)
        bits.append(pack(checkpoint.model, contexts(checkpoint)).bits)

    assert 10 <= bits[0] < bits[1]


def test_directions_are_eigenvectors_of_the_covariance() -> None:
    noise = torch.randn(27, 6, generator=torch.Generator().manual_seed(0)).numpy()
    C = noise * [5, 1, 3, 0.1, 0.2, 0.3] + 7

    places, shares = principal_directions(C)

    variances, directions = np.linalg.eigh(np.cov(C.T))
    expected = (C - C.mean(0)) @ directions[:, [-1, -2]]
    assert np.allclose(np.abs(places), np.abs(expected))
    assert np.allclose(shares, variances[[-1, -2]] / variances.sum())
    assert np.all(places.max(0) == np.abs(places).max(0))  # the sign is fixed


def test_directions_exist_for_flat_embeddings() -> None:
    column = np.linspace(0, 1, 27)[:, None]
    flat, (first, second) = principal_directions(column)
    assert (first, second) == (pytest.approx(1), 0)
    assert np.all(flat[:, 1] == 0)

    assert principal_directions(np.ones((3, 2), np.float32))[1] == [0, 0]
