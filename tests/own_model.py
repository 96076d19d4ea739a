"""A model of a user for the tests: extra config fields, batch normalisation and dropout."""

from __future__ import annotations

from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn

from makemore.config import Config


class OwnConfig(Config):
    """Config with two further fields."""

    n_layers: Annotated[int, Field(ge=1)] = 1
    """Number of hidden layers."""
    momentum: float = 0.1
    """Of the batch normalisation."""


class OwnModel(nn.Module):
    """Embedding, hidden layers with batch normalisation and dropout, logits."""

    config_class = OwnConfig

    def __init__(self, config: OwnConfig, vocab_size: int) -> None:
        super().__init__()
        sizes = [config.block_size * config.n_embd] + [config.n_hidden] * config.n_layers
        self.embed = nn.Embedding(vocab_size, config.n_embd)
        self.layers = nn.Sequential(
            *(
                nn.Sequential(
                    nn.Linear(n_in, n_out),
                    nn.BatchNorm1d(n_out, momentum=config.momentum),
                    nn.Tanh(),
                    nn.Dropout(config.dropout),
                )
                for n_in, n_out in zip(sizes[:-1], sizes[1:], strict=True)
            )
        )
        self.logits = nn.Linear(config.n_hidden, vocab_size)

    def forward(self, contexts: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, T) int64."""
        logits: Tensor = self.logits(self.layers(self.embed(contexts).flatten(1)))
        return logits


class Transposed(OwnModel):
    """Return logits of the wrong shape."""

    def forward(self, contexts: Tensor) -> Tensor:
        """Return (V, B)."""
        return super().forward(contexts).T


class DrawsItself(OwnModel):
    """Draw from torch's generator in training."""

    def forward(self, contexts: Tensor) -> Tensor:
        """Return logits with noise."""
        logits = super().forward(contexts)
        return logits + torch.randn_like(logits) if self.training else logits


class FailsWhenDeep(OwnModel):
    """Raise an error with two layers, in the constructor or in training."""

    def __init__(self, config: OwnConfig, vocab_size: int) -> None:
        super().__init__(config, vocab_size)
        self.deep = config.n_layers == 2

    def forward(self, contexts: Tensor) -> Tensor:
        """Return the logits, or raise."""
        if self.deep and self.training:
            raise RuntimeError("too deep")
        return super().forward(contexts)


class CannotBeDeep(OwnModel):
    """Raise an error in the constructor with two layers."""

    def __init__(self, config: OwnConfig, vocab_size: int) -> None:
        if config.n_layers == 2:
            raise ValueError("cannot be deep")
        super().__init__(config, vocab_size)


class Untrained(nn.Module):
    """Return uniform logits."""

    def __init__(self, config: Config, vocab_size: int) -> None:
        super().__init__()
        self.vocab_size = vocab_size

    def forward(self, contexts: Tensor) -> Tensor:
        """Return zeros (B, V)."""
        return torch.zeros(len(contexts), self.vocab_size)


NOT_A_MODULE = 3
