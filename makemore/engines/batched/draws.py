"""The random draws of `makemore.draws` in torch, for many models at once, equal to the reference bit for bit.

A uint32 word is kept in an int32 tensor: sums and products wrap to the same 32 bits, and int32 moves half the memory of
int64 (80 against 199 us for the dropout of 16 models of 32 x 200 on one core). Only a right shift and a comparison
depend on the sign, and are corrected here.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from makemore.draws import M1, M2, WEYL

SIGN = -(2**31)  # the top bit of an int32


def signed(word: int) -> int:
    """The int32 with the bits of a uint32."""
    return int(np.uint32(word).astype(np.int32))


def mix_(x: Tensor, scratch: Tensor) -> Tensor:
    """lowbias32 of int32 words, in place; `scratch` is another tensor of the same shape and dtype."""
    for shift, multiplier in ((16, M1), (15, M2)):
        torch.bitwise_right_shift(x, shift, out=scratch)
        x.bitwise_xor_(scratch.bitwise_and_(2 ** (32 - shift) - 1)).mul_(signed(multiplier))
    torch.bitwise_right_shift(x, 16, out=scratch)
    return x.bitwise_xor_(scratch.bitwise_and_(2**16 - 1))


def mix(x: Tensor) -> Tensor:
    """lowbias32 of int32 words."""
    return mix_(x.clone(), torch.empty_like(x))


def step_keys(keys: Tensor, steps: Tensor) -> Tensor:
    """The int32 key of each step (k, N), for stream keys (N,) int32 and steps (k, N) int32 counted from 0."""
    return mix(keys ^ mix(steps))


def batch_rows(keys: Tensor, batch_size: int, n_examples: int) -> Tensor:
    """Which examples make each batch: (..., batch_size) int64 for step keys (...) int32."""
    index = torch.arange(batch_size, dtype=torch.int32, device=keys.device)
    bits = mix(keys.unsqueeze(-1) + index * signed(WEYL))
    return ((bits.long() & 0xFFFFFFFF) * n_examples) >> 32


class Dropout(NamedTuple):
    """The dropout of N models."""

    n_hidden: Tensor  # (N, 1, 1) int32, a model's own: unit j of example i is draw i * n_hidden + j
    threshold: (
        Tensor  # (N, 1, 1) int32: a unit is kept where its draw, as a uint32, is at least this
    )
    scale: Tensor  # (N, 1, 1): what a kept unit is multiplied by, 1 / (1 - dropout)


def dropout_keep(
    keys: Tensor, dropout: Dropout, bits: Tensor, scratch: Tensor, keep: Tensor
) -> None:
    """What each hidden unit of one step is multiplied by, 0 or 1 / (1 - dropout), into `keep` (N, B, H).

    Args:
        keys: (N,) int32, the step's keys.
        bits, scratch: (N, B, H) int32, overwritten.
    """
    _, B, H = bits.shape
    example, unit = (torch.arange(size, dtype=torch.int32, device=bits.device) for size in (B, H))
    first = keys.view(-1, 1, 1) + example.view(-1, 1) * dropout.n_hidden * signed(WEYL)  # (N, B, 1)
    torch.add(first, unit * signed(WEYL), out=bits)
    # With the top bit flipped, int32 words compare as the uint32 words do.
    mix_(bits, scratch).bitwise_xor_(SIGN)
    torch.ge(bits, dropout.threshold ^ SIGN, out=keep)
    keep.mul_(dropout.scale)
