"""Character-level MLP of Bengio et al. 2003 in plain torch, the reference for its engines."""

from __future__ import annotations

import math
import os
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from makemore.config import Config
from makemore.errors import ModelTooLarge


class Predictor(Protocol):
    """What sampling, scoring and serving need of a model: a network, or an ensemble."""

    @property
    def block_size(self) -> int:
        """Characters of context that the model needs."""

    def is_finite(self) -> bool:
        """Return whether all weights are finite."""

    def __call__(self, X: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, block_size) int64."""


def parameter_shapes(config: Config, vocab_size: int) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of each parameter, in the order of drawing and of memory."""
    T = config.block_size
    E = config.n_embd
    H = config.n_hidden
    V = vocab_size
    shapes: dict[str, tuple[int, ...]] = {
        "C": (V, E),
        "W1": (T * E, H),
        "b1": (H,),
        "W2": (H, V),
        "b2": (V,),
    }
    return {**shapes, "Wd": (T * E, V)} if config.direct else shapes


def n_params(config: Config, vocab_size: int) -> int:
    """Return the number of trained values."""
    return sum(math.prod(shape) for shape in parameter_shapes(config, vocab_size).values())


def check_memory(n: int) -> None:
    """Refuse a model of n parameters that this machine cannot hold.

    Raises:
        ModelTooLarge: the parameters alone need more than the RAM.
    """
    memory = math.inf
    if hasattr(os, "sysconf"):
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if 4 * n > memory:
        size = f"{n:,} parameters ({4 * n / 2**30:,.0f} GiB)"
        raise ModelTooLarge(
            f"a model of {size} does not fit into memory; lower n_hidden, n_embd or block_size."
        )


def _allocate(n: int) -> Tensor:
    """Return an uninitialised vector (n,) float32, or raise ModelTooLarge if RAM is too small."""
    # Check RAM first: Linux overcommits, so a failed allocation would kill the process later.
    check_memory(n)
    return torch.empty(n)


class MLP(nn.Module):
    """Embedding, one tanh layer, logits (Bengio et al. 2003, eq. 1).

    y = b2 + W2 tanh(b1 + W1 x) (+ Wd x), with x the embeddings of the context.

    The parameters are views of one flat float32 vector, `flat`, so changing `flat` changes the
    model without a copy. Their order is C (V, E), W1 (T*E, H), b1 (H,), W2 (H, V), b2 (V,) and,
    with `config.direct`, Wd (T*E, V). A new model is in evaluation mode, without dropout.

    Args:
        config: sizes, initialisation and seed.
        vocab_size: number of symbols V.
        generator: draws the initial weights. Default: a generator seeded by `config.seed`, so
            the config alone decides the weights. The global generator is never used.

    Raises:
        ModelTooLarge: the model does not fit into memory.
    """

    C: nn.Parameter
    W1: nn.Parameter
    b1: nn.Parameter
    W2: nn.Parameter
    b2: nn.Parameter
    Wd: nn.Parameter

    def __init__(
        self, config: Config, vocab_size: int, *, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.config = config
        self.vocab_size = vocab_size
        shapes = parameter_shapes(config, vocab_size)
        self.flat = _allocate(n_params(config, vocab_size))
        views = self.flat.split([math.prod(shape) for shape in shapes.values()])
        for (name, shape), view in zip(shapes.items(), views, strict=True):
            self.register_parameter(name, nn.Parameter(view.view(shape)))
        self.dropout = nn.Dropout(config.dropout)
        self.eval()
        self._draw(generator or torch.Generator().manual_seed(config.seed))

    @torch.no_grad()
    def _draw(self, generator: torch.Generator) -> None:
        kaiming = self.config.init == "kaiming"
        fan_in = self.config.block_size * self.config.n_embd
        # He et al. 2015 with the gain 5/3 of tanh; a small W2 keeps the first loss near ln V.
        scale = {
            "C": 1.0,
            "W1": (5 / 3) / fan_in**0.5,
            "b1": 0.0,
            "W2": 0.01,
            "b2": 0.0,
            "Wd": 0.01,
        }
        for name, parameter in self.named_parameters():
            if kaiming and scale[name] == 0.0:
                parameter.zero_()
                continue
            parameter.normal_(generator=generator)
            if kaiming:
                parameter.mul_(scale[name])

    @property
    def block_size(self) -> int:
        """Characters of context."""
        return self.config.block_size

    def is_finite(self) -> bool:
        """Return whether all weights are finite."""
        return bool(torch.isfinite(self.flat).all())

    def hidden(self, X: Tensor) -> Tensor:
        """Return the tanh units (B, H) for contexts (B, T) int64."""
        return torch.tanh(self.C[X].flatten(1) @ self.W1 + self.b1)

    def forward(self, X: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, T) int64."""
        emb = self.C[X].flatten(1)  # (B, T*E)
        h = torch.tanh(emb @ self.W1 + self.b1)  # (B, H)
        logits = self.dropout(h) @ self.W2 + self.b2  # (B, V)
        return logits + emb @ self.Wd if self.config.direct else logits

    def loss(self, X: Tensor, Y: Tensor) -> Tensor:
        """Return the mean cross-entropy in nats per character.

        Args:
            X: contexts (B, T) int64.
            Y: targets (B,) int64, or their probabilities (B, V).
        """
        return F.cross_entropy(self(X), Y)
