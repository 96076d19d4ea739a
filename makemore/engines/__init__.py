"""Training engines: they keep models in slots and train each one to its next evaluation.

`make_engine` chooses the engine for a device: `cpu` trains one model per thread, `batched` trains
many models in one step on a GPU. The batched engine was tested on a CPU only; it has not been run
on a GPU yet.
"""

from __future__ import annotations

from contextlib import suppress

import torch

from makemore.data import Corpus
from makemore.engines.base import (
    Diverged,
    Engine,
    EngineFailed,
    Envelope,
    EvalPoint,
    Outcome,
    OutOfMemory,
    TrainResult,
)
from makemore.errors import UserError

__all__ = [
    "Diverged",
    "Engine",
    "EngineFailed",
    "Envelope",
    "EvalPoint",
    "OutOfMemory",
    "Outcome",
    "TrainResult",
    "make_engine",
    "resolve_device",
]


def resolve_device(device: str) -> torch.device:
    """Return the device with this name, after a check that it exists here.

    Args:
        device: "auto", "cpu", "cuda", "cuda:0" (any index) or "mps". "auto" takes CUDA if there is
            one, else MPS, else the CPU.

    Raises:
        UserError: the name is unknown, or this machine or this build of torch lacks the device.
    """
    if device == "auto":
        return _best_device()

    resolved: torch.device | None = None
    with suppress(RuntimeError):  # torch.device raises for an unknown name
        resolved = torch.device(device)
    if resolved is None or resolved.type not in ("cpu", "cuda", "mps"):
        raise UserError(
            f"device {device!r} is unknown; use auto, cpu, cuda, cuda:0 (any index) or mps."
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "device 'mps' needs a Mac with Apple silicon and a torch build that supports it; "
            "use --device auto."
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        raise UserError(
            f"device {device!r} is absent: torch finds {torch.cuda.device_count()} CUDA devices "
            "here; use --device auto."
        )
    return resolved


def _best_device() -> torch.device:
    if torch.cuda.is_available():
        return torch.device("cuda")
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def make_engine(device: str, corpus: Corpus, capacity: int, envelope: Envelope) -> Engine:
    """Make the engine for a device: `CpuEngine` on a CPU, `BatchedEngine` on a GPU.

    `BatchedEngine` has not been run on a GPU yet.

    Args:
        device: a name that `resolve_device` accepts.
        corpus: the train and dev splits.
        capacity: number of models to train at once, at least 1.
        envelope: the largest model that will be admitted. Only `BatchedEngine` uses it.

    Raises:
        UserError: the device is unknown or absent.
        ValueError: the capacity is below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, but got {capacity=}.")

    resolved = resolve_device(device)
    if resolved.type == "cpu":
        from makemore.engines.cpu.engine import CpuEngine

        return CpuEngine(corpus, capacity)

    from makemore.engines.batched.engine import BatchedEngine

    return BatchedEngine(corpus, capacity, envelope, device=resolved)
