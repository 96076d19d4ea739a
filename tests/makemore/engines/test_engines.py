"""The choice of an engine and a device."""

from __future__ import annotations

import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, make_engine, resolve_device
from makemore.engines.batched import engine as batched
from makemore.engines.batched.engine import BatchedEngine
from makemore.engines.cpu.engine import CpuEngine
from makemore.errors import UserError
from tests.makemore.engines.table import outcomes_of


def test_auto_device_is_the_best_available() -> None:
    if torch.cuda.is_available():
        expected = "cuda"
    elif torch.backends.mps.is_available():
        expected = "mps"
    else:
        expected = "cpu"

    assert resolve_device("auto").type == expected
    assert resolve_device("cpu") == torch.device("cpu")


@pytest.mark.parametrize("name", ["tpu", "", "meta", "cuda:x"])
def test_unknown_device_is_user_error(name: str) -> None:
    with pytest.raises(UserError, match=f"device '{name}' is unknown; use auto, cpu"):
        resolve_device(name)


def test_absent_cuda_device_is_user_error() -> None:
    index = torch.cuda.device_count()
    with pytest.raises(UserError, match=f"device 'cuda:{index}' is absent: torch finds {index} "):
        resolve_device(f"cuda:{index}")


@pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has MPS")
def test_absent_mps_is_user_error() -> None:
    with pytest.raises(UserError, match="device 'mps' needs a Mac.*; use --device auto"):
        resolve_device("mps")


def test_cpu_gets_the_cpu_engine(small_corpus: Corpus) -> None:
    engine = make_engine("cpu", small_corpus, 3, Envelope.around(Config()))

    assert isinstance(engine, CpuEngine) and engine.capacity == 3
    engine.close()


def test_zero_capacity_is_a_bug_of_the_caller(small_corpus: Corpus) -> None:
    with pytest.raises(
        ValueError, match="capacity must be at least 1, but got capacity=0"
    ) as raised:
        make_engine("cpu", small_corpus, 0, Envelope.around(Config()))
    assert not isinstance(raised.value, UserError)


def pretend_gpus(monkeypatch: pytest.MonkeyPatch, n: int) -> list[tuple[torch.device, int]]:
    """Let torch report n GPUs whose engines train on the CPU; returns the list of made engines."""
    made: list[tuple[torch.device, int]] = []

    class OnCpu(BatchedEngine):
        def __init__(
            self, corpus: Corpus, capacity: int, envelope: Envelope, *, device: torch.device
        ) -> None:
            made.append((device, capacity))
            super().__init__(corpus, capacity, envelope, device=torch.device("cpu"))

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)
    monkeypatch.setattr(batched, "BatchedEngine", OnCpu)
    return made


@pytest.mark.parametrize("device", ["auto", "cuda"])
def test_all_gpus_of_a_machine_share_the_models(
    monkeypatch: pytest.MonkeyPatch, small_corpus: Corpus, device: str
) -> None:
    made = pretend_gpus(monkeypatch, 3)
    config = Config(max_steps=20, eval_interval=10)
    engine = make_engine(device, small_corpus, 8, Envelope.around(config))

    assert made == [(torch.device("cuda", n), share) for n, share in enumerate((3, 3, 2))]
    assert engine.capacity == 8
    slots = {engine.admit(c): c for c in (config.replace(seed=n) for n in range(8))}
    assert [len(outcomes) for outcomes in outcomes_of(engine, slots).values()] == [2] * 8
    engine.close()


@pytest.mark.parametrize(
    ("device", "capacity", "expected"),
    [("cuda:1", 4, [("cuda:1", 4)]), ("auto", 1, [("cuda:0", 1)])],
)
def test_one_gpu_needs_no_fleet(
    monkeypatch: pytest.MonkeyPatch,
    small_corpus: Corpus,
    device: str,
    capacity: int,
    expected: list[tuple[str, int]],
) -> None:
    made = pretend_gpus(monkeypatch, 2)
    engine = make_engine(device, small_corpus, capacity, Envelope.around(Config()))

    assert isinstance(engine, BatchedEngine) and engine.capacity == capacity
    assert [(str(gpu), share) for gpu, share in made] == expected
    engine.close()
