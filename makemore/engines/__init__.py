"""What trains: engines keep models in slots, each on its own clock, and train them to their next evaluation."""

from __future__ import annotations

import torch

from makemore.data import Corpus
from makemore.engines.base import (
    Diverged,
    Engine,
    EngineFailed,
    Envelope,
    EvalPoint,
    Outcome,
    TrainResult,
)
from makemore.errors import UserError

__all__ = [
    "Diverged",
    "Engine",
    "EngineFailed",
    "Envelope",
    "EvalPoint",
    "Outcome",
    "TrainResult",
    "make_engine",
]


def resolve_device(device: str) -> torch.device:
    """The device of a name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        UserError: the device is unknown, or this machine or this build of torch lacks it; one sentence.
    """
    if device == "auto":
        device = (
            "cuda"
            if torch.cuda.is_available()
            else "mps"
            if torch.backends.mps.is_available()
            else "cpu"
        )
    try:
        resolved = torch.device(device)
    except RuntimeError:
        resolved = torch.device("meta")
    if resolved.type not in ("cpu", "cuda", "mps"):
        raise UserError(
            f"device {device!r} is unknown; use auto, cpu, cuda, cuda:0 (any index) or mps."
        )
    if resolved.type == "mps" and not torch.backends.mps.is_available():
        raise UserError(
            "device 'mps' needs a Mac with Apple silicon and a torch built for it; use --device auto."
        )
    if resolved.type == "cuda" and (resolved.index or 0) >= torch.cuda.device_count():
        found = torch.cuda.device_count()
        raise UserError(
            f"device {device!r} is absent: torch finds {found} CUDA devices here; use --device auto."
        )
    return resolved


def make_engine(device: str, corpus: Corpus, capacity: int, envelope: Envelope) -> Engine:
    """The engine for a device: one model a thread on a CPU, many models a step on a GPU.

    Args:
        capacity: models at once, at least 1.
        envelope: the largest model that will be admitted; only GPUs need it.

    Raises:
        UserError: the device is unknown or absent, or the capacity is below 1; one sentence.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, but got {capacity=}.")
    resolved = resolve_device(device)
    if resolved.type == "cpu":
        from makemore.engines.cpu.engine import CpuEngine

        return CpuEngine(corpus, capacity)
    from makemore.engines.batched.engine import BatchedEngine

    return BatchedEngine(corpus, capacity, envelope, device=resolved)
