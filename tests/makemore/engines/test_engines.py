"""The choice of an engine and a device."""

from __future__ import annotations

import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, make_engine, resolve_device
from makemore.engines.cpu.engine import CpuEngine
from makemore.errors import UserError


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
