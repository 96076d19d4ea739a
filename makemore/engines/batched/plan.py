"""Plan of the next steps of all models: their examples, learning rates and other rates."""

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
from makemore.teacher import Teacher

# AdamW's, with torch's defaults.
BETA1 = 0.9
BETA2 = 0.999
EPS = 1e-8
# The knobs of a row, by type.
INTS = (
    *("active", "step", "batch_key", "dropout_key", "batch_size", "block_size", "n_hidden"),
    *("max_steps", "warmup", "schedule", "adamw", "direct", "threshold"),
)
FLOATS = ("lr", "weight_decay", "keep_scale", "ema")
SCHEDULES = ("constant", "step", "cosine")


class Parts(NamedTuple):
    """The optional parts of a step: those that at least one training model needs.

    A part that a model does not need leaves the model's values unchanged, bit for bit. So a model
    does not depend on the parts that other models need.
    """

    sgd: bool
    adamw: bool
    dropout: bool
    direct: bool
    decay: bool

    @classmethod
    def of(cls, configs: list[Config]) -> Parts:
        """Return the parts that these configs need."""
        return cls(
            any(c.optimizer == "sgd" for c in configs),
            any(c.optimizer == "adamw" for c in configs),
            any(c.dropout > 0 for c in configs),
            any(c.direct for c in configs),
            any(c.weight_decay > 0 for c in configs),
        )


class Knobs:
    """The hyperparameters and step counts of N rows, on the host and after `upload` on the device.

    The tensors on the device keep their addresses, so a captured graph reads the current values. A
    row that is not active has an empty batch and a learning rate of 0: a step leaves it unchanged.
    """

    def __init__(self, n: int, device: torch.device, wide: torch.dtype) -> None:
        self._host_ints = np.zeros((len(INTS), n), np.int64)
        self._host_floats = np.zeros((len(FLOATS), n))
        self._host_ints[INTS.index("max_steps")] = 1
        self._ints = torch.zeros(len(INTS), n, dtype=torch.int64, device=device)
        self._floats = torch.zeros(len(FLOATS), n, dtype=wide, device=device)
        self._stale = True

    def __getitem__(self, name: str) -> Tensor:
        """Return a knob's values (N,) on the device: int64 for INTS, wide float for FLOATS."""
        return self._ints[INTS.index(name)] if name in INTS else self._floats[FLOATS.index(name)]

    def admit(self, row: int, config: Config, step: int) -> None:
        """Start a model in a row, at a step."""
        self._set(
            row,
            active=1,
            step=step,
            max_steps=config.max_steps,
            warmup=max(1, round(WARMUP * config.max_steps)),
            batch_size=config.batch_size,
            block_size=config.block_size,
            n_hidden=config.n_hidden,
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

    def deactivate(self, row: int) -> None:
        """Make a row inactive."""
        self._set(row, active=0)

    def _set(self, row: int, **values: Any) -> None:
        for name, value in values.items():
            if name in INTS:
                self._host_ints[INTS.index(name), row] = value
            else:
                self._host_floats[FLOATS.index(name), row] = value
        self._stale = True

    def advance(self, steps: int) -> None:
        """Count steps on the host; the device counts them in the step itself."""
        self._host_ints[INTS.index("step")] += steps

    def upload(self) -> None:
        """Copy the host's values to the device if they have changed."""
        if self._stale:
            self._ints.copy_(torch.from_numpy(self._host_ints))
            self._floats.copy_(torch.from_numpy(self._host_floats).to(self._floats.dtype))
            self._stale = False

    def deactivate_all(self) -> None:
        """Make all rows inactive on the device until the next `upload`."""
        self["active"].zero_()
        self._stale = True


class SoftTargets(NamedTuple):
    """The soft targets of a teacher on a device."""

    true_weight: float  # weight of the true targets
    table: Tensor  # (M, V) the teacher's probabilities times their weight
    rows: Tensor  # (N,) int32, the table row of each train example

    @classmethod
    def of(cls, teacher: Teacher, device: torch.device, dtype: torch.dtype) -> SoftTargets:
        """Copy the soft targets of a teacher to a device."""
        table = torch.tensor(teacher.table, dtype=dtype) * teacher.weight
        return cls(1 - teacher.weight, table.to(device), torch.tensor(teacher.rows).to(device))


class TrainSet:
    """The train split on a device.

    Attributes:
        stream: (S,) int32, the symbols of all words.
        positions: (N,), the position of each example's target in the stream.
        soft: the soft targets of the examples; None without a teacher.
    """

    def __init__(
        self, examples: Examples, device: torch.device, soft: SoftTargets | None = None
    ) -> None:
        self.stream = torch.from_numpy(examples.stream.astype(np.int32)).to(device)
        self.positions = torch.from_numpy(examples.positions).to(device)
        self.soft = soft


class StepPlan(NamedTuple):
    """The inputs of one step of N models."""

    table_rows: Tensor  # (N * B * T,) int32: the contexts as rows of `Step.table`
    codes: Tensor  # (N * T * B,) int32: the contexts as symbols, with V for unused positions
    targets: Tensor  # (N, 1, B) int64
    soft_rows: Tensor  # (N * B,) int32: rows of `SoftTargets.table`; empty without a teacher
    dropout_keys: Tensor  # (N,) int32
    decay: Tensor  # (N, 1): 1 - lr * weight_decay
    rate: Tensor  # (N, 1): the negative factor of the update direction
    eps: Tensor  # (N, 1): AdamW's eps times the root of its second bias correction
    averaging: Tensor  # (N, 1): `schedule.averaging_at`, or 0 for an inactive row


class Plan(NamedTuple):
    """The inputs of the next steps of N models."""

    steps: list[StepPlan]
    weights: Tensor  # (N, 1, B): 1 / batch_size, or 0 beyond the model's batch size
    dropout: Dropout
    adamw: Tensor  # (N, 1): 1, or 0 for SGD
    blend1: Tensor  # (N, 1): 1 - BETA1, or 0 for an inactive row
    beta2: Tensor  # (N, 1): BETA2, or 1 for an inactive row


def make_plan(k: int, knobs: Knobs, train: TrainSet, layout: Layout, dtype: torch.dtype) -> Plan:
    """Draw the batches and compute the rates of the next k steps of all rows, on the device.

    Args:
        k: number of steps.
        knobs: the hyperparameters and step counts of the rows.
        train: the train split.
        layout: the layout of the rows.
        dtype: that of the weights.
    """
    steps = knobs["step"] + torch.arange(k, device=train.stream.device).unsqueeze(1)  # (k, N)
    per_step = (
        *_examples(steps, knobs, train, layout),
        step_keys(knobs["dropout_key"].to(torch.int32), steps.to(torch.int32)),
        *(x.unsqueeze(2).to(dtype) for x in _rates(steps, knobs)),
    )
    active = knobs["active"].to(knobs["lr"].dtype).unsqueeze(1)
    return Plan(
        steps=[StepPlan(*inputs) for inputs in zip(*(x.unbind(0) for x in per_step), strict=True)],
        weights=_example_weights(knobs, active, layout).unsqueeze(1).to(dtype),
        dropout=Dropout(
            n_hidden=knobs["n_hidden"].to(torch.int32).view(-1, 1, 1),
            threshold=knobs["threshold"].to(torch.int32).view(-1, 1, 1),
            scale=knobs["keep_scale"].to(dtype).view(-1, 1, 1),
        ),
        adamw=knobs["adamw"].unsqueeze(1).to(dtype),
        blend1=((1 - BETA1) * active).to(dtype),
        beta2=(1 - (1 - BETA2) * active).to(dtype),
    )


def _rates(steps: Tensor, knobs: Knobs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return decay, rate, eps and averaging of `StepPlan` for steps (k, N), each (k, N)."""
    lr = learning_rates(knobs, steps)
    count = (steps + 1).to(lr.dtype)
    correction1 = -torch.expm1(count * math.log(BETA1))
    correction2 = -torch.expm1(count * math.log(BETA2))
    rate = torch.where(knobs["adamw"] > 0, lr * correction2.sqrt() / correction1, lr)
    averaging = (knobs["active"] > 0) / (knobs["ema"] * (count - 1) + 1)
    return 1 - lr * knobs["weight_decay"], -rate, EPS * correction2.sqrt(), averaging


def _example_weights(knobs: Knobs, active: Tensor, layout: Layout) -> Tensor:
    """Return the weight of each example in the loss, (N, B), for active (N, 1)."""
    B = layout.envelope.batch_size
    batch_size = knobs["batch_size"].unsqueeze(1)
    example = torch.arange(B, device=active.device)
    weights = (active / batch_size.clamp(min=1)).expand(-1, B)
    # Not torch.where: it would copy the number 0 to the device, which a CUDA graph does not allow.
    return weights.masked_fill(example >= batch_size, 0)


def _examples(
    steps: Tensor, knobs: Knobs, train: TrainSet, layout: Layout
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the first four fields of `StepPlan` for steps (k, N), each with k in front."""
    k, N = steps.shape
    B = layout.envelope.batch_size
    T = layout.envelope.block_size
    device = steps.device
    keys = step_keys(knobs["batch_key"].to(torch.int32), steps.to(torch.int32))
    rows = batch_rows(keys, B, len(train.positions))
    positions = train.positions.index_select(0, rows.view(-1))
    targets = train.stream.index_select(0, positions).view(k, N, 1, B).long()

    column = torch.arange(T, dtype=torch.int32, device=device)
    window = positions.view(k, N, B, 1) + (column - T)
    codes = train.stream.index_select(0, window.view(-1)).view_as(window)
    codes.masked_fill_(column < T - knobs["block_size"].view(N, 1, 1), layout.vocab_size)

    model = torch.arange(N, dtype=torch.int32, device=device).view(N, 1, 1)
    first = model * (layout.width // layout.envelope.n_embd)  # the table row of each C's row 0
    soft_rows = rows.new_empty(k, 0)
    if train.soft is not None:
        soft_rows = train.soft.rows.index_select(0, rows.view(-1)).view(k, -1)
    table_rows = (codes + first).view(k, -1)
    return table_rows, codes.transpose(2, 3).reshape(k, -1), targets, soft_rows


def learning_rates(knobs: Knobs, steps: Tensor) -> Tensor:
    """Return `makemore.schedule.lr_at` for steps (k, N), in the wide dtype; 0 for inactive rows.

    The values are rounded to float32 like those of `lr_at`, and are equal to them if the device has
    float64.
    """
    dtype = knobs["lr"].dtype
    at = steps.to(dtype)
    last = knobs["max_steps"].to(dtype)
    warmup = knobs["warmup"].to(dtype)
    progress = ((at - warmup) / (last - warmup).clamp(min=1)).clamp(0, 1)
    cosine = torch.minimum(
        (at + 1) / warmup.clamp(min=1), 0.5 * (1 + torch.cos(math.pi * progress))
    )
    past_half = (knobs["schedule"] == SCHEDULES.index("step")) & (2 * steps >= knobs["max_steps"])
    factor = cosine.masked_fill(knobs["schedule"] != SCHEDULES.index("cosine"), 1)
    factor = factor.masked_fill(past_half, 0.1)
    return (knobs["lr"] * factor).float().to(dtype) * (knobs["active"] > 0)
