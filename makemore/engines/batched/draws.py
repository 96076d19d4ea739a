"""The random draws of `makemore.draws` in torch, for many models at once, equal bit for bit.

A uint32 word is kept in an int32 tensor: sums and products wrap to the same 32 bits, and int32
needs half the memory of int64 (80 us instead of 199 us for the dropout of 16 models of 32 x 200 on
one core). Only a right shift and a comparison depend on the sign; they are corrected here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from makemore.draws import M1, M2, WEYL

SIGN = -(2**31)  # the top bit of an int32


def signed(word: int) -> int:
    """Return the int32 that has the bits of a uint32."""
    return int(np.uint32(word).astype(np.int32))


def mix_(x: Tensor, scratch: Tensor) -> Tensor:
    """Replace int32 words by their lowbias32 hash and return them.

    Args:
        x: the words, any shape.
        scratch: another tensor of this shape and dtype; overwritten.
    """
    for shift, multiplier in ((16, M1), (15, M2)):
        torch.bitwise_right_shift(x, shift, out=scratch)
        x.bitwise_xor_(scratch.bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed(multiplier))
    torch.bitwise_right_shift(x, 16, out=scratch)
    return x.bitwise_xor_(scratch.bitwise_and_(2**16 - 1))


def mix(x: Tensor) -> Tensor:
    """Return the lowbias32 hash of int32 words."""
    return mix_(x.clone(), torch.empty_like(x))


def step_keys(keys: Tensor, steps: Tensor) -> Tensor:
    """Return the key of each step, (k, N) int32.

    Args:
        keys: (N,) int32, the stream keys.
        steps: (k, N) int32, counted from 0.
    """
    return mix(keys ^ mix(steps))


def batch_rows(keys: Tensor, batch_size: int, n_examples: int) -> Tensor:
    """Return the examples of each batch, (..., batch_size) int64, for step keys (...) int32."""
    index = torch.arange(batch_size, dtype=torch.int32, device=keys.device)
    bits = mix(keys.unsqueeze(-1) + index * signed(WEYL))
    return ((bits.long() & 0xFFFFFFFF) * n_examples) >> 32


class Dropout(NamedTuple):
    """The dropout of N models."""

    # (N, 1, 1) int32, the size of each model: unit j of example i uses draw i * n_hidden + j.
    n_hidden: Tensor
    # (N, 1, 1) int32: a unit is kept if its draw, as a uint32, is at least this.
    threshold: Tensor
    # (N, 1, 1) float: the factor of a kept unit, 1 / (1 - dropout).
    scale: Tensor


def dropout_keep(
    keys: Tensor, dropout: Dropout, bits: Tensor, scratch: Tensor, keep: Tensor
) -> None:
    """Write the factor of each hidden unit in one step into `keep`: 0 or 1 / (1 - dropout).

    Args:
        keys: (N,) int32, the step's keys.
        dropout: the dropout of the N models.
        bits, scratch: (N, B, H) int32, overwritten.
        keep: (N, B, H), the result.
    """
    _, B, H = bits.shape
    example = torch.arange(B, dtype=torch.int32, device=bits.device)
    unit = torch.arange(H, dtype=torch.int32, device=bits.device)
    first = keys.view(-1, 1, 1) + example.view(-1, 1) * dropout.n_hidden * signed(WEYL)  # (N, B, 1)
    torch.add(first, unit * signed(WEYL), out=bits)
    # With the top bit flipped, int32 words compare in the order of the uint32 words.
    mix_(bits, scratch).bitwise_xor_(SIGN)
    torch.ge(bits, dropout.threshold ^ SIGN, out=keep)
    keep.mul_(dropout.scale)
