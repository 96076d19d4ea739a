"""Training engines: they keep models in slots and train each one to its next evaluation.

`make_engine` chooses the engine for a device: `cpu` trains one model per thread, `batched` trains
many models in one step on a GPU, and `fleet` joins the engines of several GPUs into one. They train
the MLP. `autograd` trains any torch module, and is their reference.
The batched engine was tested on a CPU only; it has not been run on a GPU yet.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial

import torch

from makemore.data import Corpus
from makemore.engines.base import (
    Diverged,
    Engine,
    EngineFailed,
    Envelope,
    EvalPoint,
    HostLost,
    Outcome,
    OutOfMemory,
    TrainResult,
)
from makemore.errors import UserError
from makemore.models import ModelClass

__all__ = [
    "Diverged",
    "Engine",
    "EngineFailed",
    "Envelope",
    "EvalPoint",
    "HostLost",
    "OutOfMemory",
    "Outcome",
    "TrainResult",
    "devices",
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


def devices(device: str) -> list[torch.device]:
    """Return the devices that a name means: "auto" and "cuda" mean every visible CUDA device.

    Args:
        device: a name that `resolve_device` accepts.

    Raises:
        UserError: as `resolve_device`.
    """
    resolved = resolve_device(device)
    if resolved.type == "cuda" and resolved.index is None:
        return [torch.device("cuda", index) for index in range(torch.cuda.device_count())]
    return [resolved]


def make_engine(
    device: str,
    corpus: Corpus,
    capacity: int,
    envelope: Envelope,
    model: ModelClass | None = None,
) -> Engine:
    """Make the engine for a device: `CpuEngine` on a CPU, `BatchedEngine` on a GPU.

    A model of the user's own gets the `AutogradEngine`, whose slots share all GPUs. For the MLP,
    several GPUs get one `BatchedEngine` each, in a `Fleet`. None has been run on a GPU yet.

    Args:
        device: a name that `resolve_device` accepts.
        corpus: the train and dev splits.
        capacity: number of models to train at once, at least 1; several GPUs share them.
        envelope: the largest model that will be admitted. Only `BatchedEngine` uses it.
        model: class of the user's model; None for the MLP.

    Raises:
        UserError: the device is unknown or absent.
        ValueError: the capacity is below 1.
    """
    if capacity < 1:
        raise ValueError(f"capacity must be at least 1, but got {capacity=}.")

    used = devices(device)[:capacity]
    if model is not None:
        from makemore.engines.autograd import AutogradEngine

        return AutogradEngine(corpus, capacity, model, used)

    if used[0].type == "cpu":
        from makemore.engines.cpu.engine import CpuEngine

        return CpuEngine(corpus, capacity)

    from makemore.engines.batched.engine import BatchedEngine

    if len(used) == 1:
        return BatchedEngine(corpus, capacity, envelope, device=used[0])

    from makemore.engines.fleet.fleet import Fleet
    from makemore.engines.fleet.host import ThreadHost

    def make(number: int) -> Engine:
        share = len(range(number, capacity, len(used)))
        return BatchedEngine(corpus, share, envelope, device=used[number])

    hosts = [ThreadHost(str(gpu), partial(make, number)) for number, gpu in enumerate(used)]
    return Fleet.of(hosts, len(corpus.vocab))
