"""Models of a user's class: construction from the config alone, and the properties of a Network."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

from makemore.config import Config
from makemore.errors import ModelTooLarge
from makemore.model import MLP
from makemore.models import Network, build, class_of, config_class_of, count_params, state_of, wrap
from tests.conftest import ROOT
from tests.own_model import OwnConfig, OwnModel

CONFIG = OwnConfig(n_hidden=6, n_layers=2, seed=4)


def network(config: OwnConfig = CONFIG) -> Network:
    return Network(build(OwnModel, config, 5), config, 5)


def test_initial_weights_depend_on_the_config_alone() -> None:
    torch.manual_seed(1)
    first = network()
    torch.manual_seed(2)
    before = torch.get_rng_state()

    assert torch.equal(network().flat, first.flat)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(network(CONFIG.replace(seed=5)).flat, first.flat)


def test_new_model_is_in_evaluation_mode() -> None:
    assert not any(module.training for module in build(OwnModel, CONFIG, 5).modules())


def test_count_is_that_of_all_layers() -> None:
    embedding, first, second, logits = 5 * 10, 30 * 6 + 6, 6 * 6 + 6, 6 * 5 + 5
    norms = 2 * 2 * 6
    expected = embedding + first + second + logits + norms

    assert count_params(build(OwnModel, CONFIG, 5)) == expected == len(network().flat)


def test_model_beyond_the_memory_is_refused() -> None:
    huge = OwnConfig(n_hidden=65_535, n_embd=65_535, block_size=32)
    with pytest.raises(ModelTooLarge, match="does not fit into memory"):
        build(OwnModel, huge, 27)


def test_class_with_a_generator_of_its_own_can_be_built() -> None:
    class Drawn(nn.Module):
        def __init__(self, config: Config, vocab_size: int) -> None:
            super().__init__()
            generator = torch.Generator().manual_seed(3)
            self.W = nn.Parameter(torch.randn(vocab_size, 2, generator=generator))

    expected = torch.randn(5, 2, generator=torch.Generator().manual_seed(3))
    module = build(Drawn, Config(), 5)
    assert torch.equal(next(module.parameters()), expected)


def test_buffers_are_part_of_the_state() -> None:
    model = network()
    buffers = [name for name, _ in model.module.named_buffers()]

    assert len(buffers) == 6 and set(buffers) <= set(state_of(model))
    assert model.is_finite()
    next(model.module.buffers()).fill_(torch.nan)
    assert not model.is_finite()


def test_mlp_is_built_without_the_compiler_of_torch() -> None:
    # On torch's meta device, drawing the weights would import it, which takes a second.
    program = """
import sys
from makemore.config import Config
from makemore.model import MLP
from makemore.models import build
build(MLP, Config(), 27)
print("torch._dynamo" in sys.modules)
"""
    command = [sys.executable, "-c", program]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert ran.stdout == "False\n"


def test_mlp_needs_no_wrapper() -> None:
    mlp = MLP(Config(), 5)

    assert wrap(mlp, Config(), 5) is mlp and class_of(mlp) is None
    assert class_of(network()) is OwnModel
    assert config_class_of(OwnModel) is OwnConfig and config_class_of(None) is Config
