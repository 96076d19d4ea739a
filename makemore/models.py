"""Models of your own: any torch module that maps contexts to logits.

A model class is an `nn.Module` with

    __init__(self, config, vocab_size)
    forward(self, contexts)         # (B, T) int64 -> logits (B, V) float32

It may have an attribute `config_class`, a subclass of Config with further fields.
"""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from makemore.config import Config
from makemore.errors import UserError
from makemore.model import MLP, check_memory

ModelClass = type[nn.Module]

# Constructors use torch's generator, which all threads share.
GENERATOR = threading.Lock()


@dataclass(frozen=True, eq=False)
class Network:
    """A trained model of a user's class, on the CPU and in evaluation mode.

    Attributes:
        module: an instance of the user's class.
        config: of the training.
        vocab_size: number of symbols V.
    """

    module: nn.Module
    config: Config
    vocab_size: int

    @property
    def block_size(self) -> int:
        """Characters of context."""
        return self.config.block_size

    @property
    def flat(self) -> Tensor:
        """(n_params,) a copy of all parameters."""
        return nn.utils.parameters_to_vector(self.module.parameters()).detach()

    def is_finite(self) -> bool:
        """Return whether all weights and buffers are finite."""
        return all(
            bool(torch.isfinite(tensor).all()) for tensor in self.module.state_dict().values()
        )

    def __call__(self, X: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, block_size) int64."""
        logits: Tensor = self.module(X)
        return logits


Model = MLP | Network


def wrap(module: nn.Module, config: Config, vocab_size: int) -> Model:
    """Return a module with what sampling, scoring and checkpoints need of a model."""
    return module if isinstance(module, MLP) else Network(module, config, vocab_size)


def class_of(model: Model) -> ModelClass | None:
    """Return the user's class of a model; None for an MLP."""
    return None if isinstance(model, MLP) else type(model.module)


def state_of(model: Model) -> dict[str, Tensor]:
    """Return the parameters and buffers by name, on the CPU."""
    if isinstance(model, MLP):
        return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}
    # Copies, because a file cannot hold tensors that share their memory.
    return {name: t.detach().cpu().clone() for name, t in model.module.state_dict().items()}


def config_class_of(model: ModelClass | None) -> type[Config]:
    """Return the class of a model's configs."""
    return getattr(model, "config_class", Config)


def check_config(config: Config, model: ModelClass | None, what: str) -> None:
    """Refuse a config of another class than the model's.

    Args:
        config: the config.
        model: the class of the model; None for the MLP.
        what: names the config in the message.

    Raises:
        UserError: the class of the config is not the model's `config_class`.
    """
    found, expected = type(config), config_class_of(model)
    if found is expected:
        return
    if model is None:
        raise UserError(
            f"{what} is a {found.__name__}, but the MLP has a Config; give model= the class of "
            f"your model, whose config_class is {found.__name__}."
        )
    if expected is Config:
        raise UserError(
            f"{what} is a {found.__name__}, but {model.__name__} has no config_class; write "
            f"config_class = {found.__name__} in {model.__name__}."
        )
    raise UserError(
        f"{what} is a {found.__name__}, but the config_class of {model.__name__} is "
        f"{expected.__name__}; make a {expected.__name__}(...)."
    )


def build(model: ModelClass, config: Config, vocab_size: int) -> nn.Module:
    """Return a new module in evaluation mode; its weights depend on the config alone.

    Raises:
        ModelTooLarge: the parameters do not fit into memory.
    """
    if model is MLP:  # checks its memory itself, and has its own generator
        return MLP(config, vocab_size)
    with GENERATOR, torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(config.seed)
        check_memory(_count_without_memory(model, config, vocab_size))
        torch.default_generator.manual_seed(config.seed)
        return model(config, vocab_size).eval()


def count_params(module: nn.Module) -> int:
    """Return the number of trained values."""
    return sum(parameter.numel() for parameter in module.parameters())


def _count_without_memory(model: ModelClass, config: Config, vocab_size: int) -> int:
    """Return the number of trained values; 0 if the model cannot be made without memory."""
    try:
        with torch.device("meta"):
            return count_params(model(config, vocab_size))
    except Exception:
        # Some constructors need values, for example draws from a generator of their own. An error
        # of the user's code appears when the model is made in memory.
        return 0
