"""The hierarchical network of lecture 5."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from makemore.errors import UserError
from makemore.model_class import read_model_config
from makemore.models import build, count_params
from studies.wavenet import WaveConfig, WaveNet
from tests.conftest import ROOT
from tests.studies.conftest import states_of

FILE = ROOT / "experiments" / "configs" / "wavenet.toml"


def test_size_is_that_of_the_lecture() -> None:
    # 27 symbols; the number is printed in the lecture.
    assert count_params(build(WaveNet, read_model_config(FILE, WaveNet), 27)) == 76_579


def test_pairs_of_neighbours_are_joined() -> None:
    config = WaveConfig(block_size=4, n_layers=2, n_embd=2, n_hidden=3)
    model = build(WaveNet, config, 5)
    X = torch.tensor([[1, 2, 3, 4]])
    assert isinstance(model, WaveNet)

    embedded = model.embed(X)  # (1, 4, 2)
    pairs = torch.stack([embedded[:, :2].flatten(1), embedded[:, 2:].flatten(1)], 1)  # (1, 2, 4)
    # The running statistics of a new batch normalisation are 0 and 1.
    scale = (1 + model.norms[0].eps) ** -0.5  # type: ignore[operator]
    h = torch.tanh(model.linears[0](pairs) * scale)  # (1, 2, 3)
    h = torch.tanh(model.linears[1](h.flatten(1)) * scale)  # (1, 3)
    assert torch.allclose(model(X), model.logits(h), atol=1e-6)


def test_block_size_must_fit_the_layers() -> None:
    with pytest.raises(UserError, match=r"block_size must be 2 \*\* n_layers; change one"):
        build(WaveNet, WaveConfig(block_size=3), 27)


def test_script_searches_it(names: Path, run_file: Any) -> None:
    flags = "--trials 2 --steps 10 --repeats 0 --workers 2 --device cpu".split()
    ran = run_file("studies/wavenet.py", *flags, "--names", names)

    assert ran.code == 0 and "Winner: trial" in ran.out
    assert len(states_of("wavenet")) == 2
