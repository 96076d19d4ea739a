"""What the next steps of all models need before their arithmetic begins: examples, learning rates, weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from makemore.config import Config
from makemore.data import Examples
from makemore.draws import dropout_threshold, stream_key
from makemore.engines.batched.draws import Dropout, batch_rows, signed, step_keys
from makemore.engines.batched.layout import Layout
from makemore.schedule import WARMUP

BETA1, BETA2, EPS = 0.9, 0.999, 1e-8  # of AdamW, as torch's defaults
INTS = """
    active step batch_key dropout_key batch_size block_size n_hidden max_steps warmup schedule adamw direct threshold
""".split()
FLOATS = ["lr", "weight_decay", "keep_scale", "ema"]
SCHEDULES = ("constant", "step", "cosine")


class Parts(NamedTuple):
    """The optional parts of a step that at least one training model needs; the others are left out for all.

    A part that a model does not need leaves its values as they are, to the bit, so a model does not depend on what
    its neighbours need.
    """

    sgd: bool
    adamw: bool
    dropout: bool
    direct: bool
    decay: bool

    @classmethod
    def of(cls, configs: list[Config]) -> Parts:
        return cls(
            any(c.optimizer == "sgd" for c in configs),
            any(c.optimizer == "adamw" for c in configs),
            any(c.dropout > 0 for c in configs),
            any(c.direct for c in configs),
            any(c.weight_decay > 0 for c in configs),
        )


class Knobs:
    """What is known of each of N models beside its weights, on the host and, after `upload`, on the device.

    The device's values never move in memory, so a captured graph reads those of the models that are there now. A row
    that is not active trains on nothing with a learning rate of 0, and its step is the identity.
    """

    def __init__(self, n: int, device: torch.device, wide: torch.dtype) -> None:
        self._host_ints = np.zeros((len(INTS), n), np.int64)
        self._host_floats = np.zeros((len(FLOATS), n))
        self._host_ints[INTS.index("max_steps")] = 1
        self._ints = torch.zeros(len(INTS), n, dtype=torch.int64, device=device)
        self._floats = torch.zeros(len(FLOATS), n, dtype=wide, device=device)
        self._stale = True

    def __getitem__(self, name: str) -> Tensor:
        """The device's values (N,) of one knob: int64 for those of INTS, otherwise the wide float dtype."""
        return self._ints[INTS.index(name)] if name in INTS else self._floats[FLOATS.index(name)]

    def admit(self, row: int, config: Config, step: int) -> None:
        """Let a row train a model from a step on."""
        self._set(
            row,
            **dict(
                active=1,
                step=step,
                max_steps=config.max_steps,
                warmup=max(1, round(WARMUP * config.max_steps)),
            ),
            **dict(
                batch_size=config.batch_size, block_size=config.block_size, n_hidden=config.n_hidden
            ),
            batch_key=signed(stream_key(config.seed, "batch")),
            dropout_key=signed(stream_key(config.seed, "dropout")),
            threshold=signed(dropout_threshold(config.dropout)),
            schedule=SCHEDULES.index(config.schedule),
            adamw=config.optimizer == "adamw",
            direct=config.direct,
            lr=config.lr,
            weight_decay=config.weight_decay,
            ema=config.ema,
            keep_scale=float(np.float32(1 / (1 - config.dropout))),
        )

    def stop(self, row: int) -> None:
        """Let a row rest."""
        self._set(row, active=0)

    def _set(self, row: int, **values: Any) -> None:
        for name, value in values.items():
            if name in INTS:
                self._host_ints[INTS.index(name), row] = value
            else:
                self._host_floats[FLOATS.index(name), row] = value
        self._stale = True

    def advance(self, steps: int) -> None:
        """Count steps on the host; the device has counted them itself."""
        self._host_ints[INTS.index("step")] += steps

    def upload(self) -> None:
        """Bring the device up to date when the host's values were changed."""
        if self._stale:
            self._ints.copy_(torch.from_numpy(self._host_ints))
            self._floats.copy_(torch.from_numpy(self._host_floats).to(self._floats.dtype))
            self._stale = False

    def rest(self) -> None:
        """Let all rows rest until the next `upload`."""
        self["active"].zero_()
        self._stale = True


class TrainSet:
    """The train split on a device: the stream (S,) int32 and the position of each example's target (N,) int32."""

    def __init__(self, examples: Examples, device: torch.device) -> None:
        self.stream = torch.from_numpy(examples.stream.astype(np.int32)).to(device)
        self.positions = torch.from_numpy(examples.positions).to(device)


class StepPlan(NamedTuple):
    """The inputs of one step of N models."""

    table_rows: (
        Tensor  # (N * B * T,) int32: the contexts as rows of the table of all models' embeddings
    )
    codes: Tensor  # (N * T * B,) int32: the contexts as symbols, with V for a position that is not used
    targets: Tensor  # (N, 1, B) int64
    dropout_keys: Tensor  # (N,) int32
    decay: Tensor  # (N, 1): 1 - lr * weight_decay
    rate: Tensor  # (N, 1): what the update direction is multiplied by, negative
    eps: Tensor  # (N, 1): AdamW's, times the root of its second bias correction
    averaging: Tensor  # (N, 1): `schedule.averaging_at`, or 0 for a row at rest


class Plan(NamedTuple):
    """The inputs of the next steps of N models."""

    steps: list[StepPlan]
    weights: Tensor  # (N, 1, B): 1 / batch_size, or 0 for an example that the model does not have
    dropout: Dropout
    adamw: Tensor  # (N, 1): 1, or 0 for SGD
    blend1: Tensor  # (N, 1): 1 - BETA1, or 0 for a row at rest
    beta2: Tensor  # (N, 1): BETA2, or 1 for a row at rest


def make_plan(k: int, knobs: Knobs, train: TrainSet, layout: Layout, dtype: torch.dtype) -> Plan:
    """Draw the batches and compute the rates of the next k steps of all rows, on the device."""
    B = layout.envelope.batch_size
    device = train.stream.device
    steps = knobs["step"] + torch.arange(k, device=device).unsqueeze(1)  # (k, N)
    lr = learning_rates(knobs, steps)
    count = (steps + 1).to(lr.dtype)
    correction1, correction2 = (-torch.expm1(count * math.log(beta)) for beta in (BETA1, BETA2))
    rate = torch.where(knobs["adamw"] > 0, lr * correction2.sqrt() / correction1, lr)
    averaging = (knobs["active"] > 0) / (knobs["ema"] * (count - 1) + 1)
    per_step = (
        *_examples(steps, knobs, train, layout),
        step_keys(knobs["dropout_key"].to(torch.int32), steps.to(torch.int32)),
        *(
            x.unsqueeze(2).to(dtype)
            for x in (1 - lr * knobs["weight_decay"], -rate, EPS * correction2.sqrt(), averaging)
        ),
    )
    batch_size = knobs["batch_size"].unsqueeze(1)
    active = knobs["active"].to(lr.dtype).unsqueeze(1)
    # masked_fill, not torch.where: that would bring a number to the device in a copy, which a CUDA graph cannot hold.
    weights = (
        (active / batch_size.clamp(min=1))
        .expand(-1, B)
        .masked_fill(torch.arange(B, device=device) >= batch_size, 0)
    )
    return Plan(
        steps=[StepPlan(*inputs) for inputs in zip(*(x.unbind(0) for x in per_step), strict=True)],
        weights=weights.unsqueeze(1).to(dtype),
        dropout=Dropout(
            n_hidden=knobs["n_hidden"].to(torch.int32).view(-1, 1, 1),
            threshold=knobs["threshold"].to(torch.int32).view(-1, 1, 1),
            scale=knobs["keep_scale"].to(dtype).view(-1, 1, 1),
        ),
        adamw=knobs["adamw"].unsqueeze(1).to(dtype),
        blend1=((1 - BETA1) * active).to(dtype),
        beta2=(1 - (1 - BETA2) * active).to(dtype),
    )


def _examples(
    steps: Tensor, knobs: Knobs, train: TrainSet, layout: Layout
) -> tuple[Tensor, Tensor, Tensor]:
    """The table rows, codes and targets of steps (k, N), each with k in front."""
    (k, N), B, T = steps.shape, layout.envelope.batch_size, layout.envelope.block_size
    device = steps.device
    keys = step_keys(
        knobs["batch_key"].to(torch.int32), steps.to(torch.int32)
    )  # the hash works on 32 bits
    rows = batch_rows(keys, B, len(train.positions))
    positions = train.positions.index_select(0, rows.view(-1))
    targets = train.stream.index_select(0, positions).view(k, N, 1, B).long()
    column = torch.arange(T, dtype=torch.int32, device=device)
    window = positions.view(k, N, B, 1) + (column - T)
    codes = train.stream.index_select(0, window.view(-1)).view_as(window)
    codes.masked_fill_(column < T - knobs["block_size"].view(N, 1, 1), layout.vocab_size)
    # Row 0 of each model's C is this many table rows after the one of the model before.
    first = torch.arange(N, dtype=torch.int32, device=device).view(N, 1, 1) * (
        layout.width // layout.envelope.n_embd
    )
    return (codes + first).view(k, -1), codes.transpose(2, 3).reshape(k, -1), targets


def learning_rates(knobs: Knobs, steps: Tensor) -> Tensor:
    """`makemore.schedule.lr_at` for steps (k, N) of all rows, in the wide dtype; 0 for a row at rest.

    The values are rounded to float32 as those of `lr_at`, and equal them where the device has float64.
    """
    at, last, warmup = (
        x.to(knobs["lr"].dtype) for x in (steps, knobs["max_steps"], knobs["warmup"])
    )
    progress = ((at - warmup) / (last - warmup).clamp(min=1)).clamp(0, 1)
    cosine = torch.minimum(
        (at + 1) / warmup.clamp(min=1), 0.5 * (1 + torch.cos(math.pi * progress))
    )
    past_half = (knobs["schedule"] == SCHEDULES.index("step")) & (2 * steps >= knobs["max_steps"])
    factor = cosine.masked_fill(knobs["schedule"] != SCHEDULES.index("cosine"), 1).masked_fill(
        past_half, 0.1
    )
    return (knobs["lr"] * factor).float().to(at.dtype) * (knobs["active"] > 0)
