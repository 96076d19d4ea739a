"""Where the parameters of a model stand in its row of a stacked tensor, whatever the model's own sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from makemore.config import Config
from makemore.engines.base import Envelope
from makemore.model import MLP

ALIGNMENT = 16  # values; a parameter then starts at a whole number of 64-byte lines in float32


class Layout:
    """One row of `width` values holds one model, padded by zeros to the envelope's T, E and H.

    Shapes in the row: C (V + 1, E), W1 (T * E, H), b1 (1, H), W2 (V, H), b2 (V, 1), Wd (V, T * E). The extra row of C
    is the embedding of context positions that a smaller block size does not use. W2 and Wd are transposed, because on
    a CPU a product is up to 1.7 times faster when the inner dimension of its result is not the odd V.

    Zeros stay zero in training without masks. A padded hidden unit has a zero column in W1 and a zero row in W2, so
    its activation and all gradients there are exactly 0; so it is for padded embedding features, and for unused
    context positions, whose embedding and whose rows of W1 are both 0.
    """

    def __init__(self, envelope: Envelope, vocab_size: int) -> None:
        self.envelope, self.vocab_size = envelope, vocab_size
        T, E, H, V = envelope.block_size, envelope.n_embd, envelope.n_hidden, vocab_size
        self.shapes = {"C": (V + 1, E), "W1": (T * E, H), "b1": (1, H), "W2": (V, H), "b2": (V, 1)}
        if envelope.direct:
            self.shapes["Wd"] = (V, T * E)
        self.offsets, end = {}, 0
        for name, (rows, columns) in self.shapes.items():
            self.offsets[name] = end
            end += -(-rows * columns // ALIGNMENT) * ALIGNMENT
        # C stands first and the width is a multiple of E, so that all models' embeddings are rows of one table.
        step = math.lcm(E, ALIGNMENT)
        self.width = -(-end // step) * step

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """The parameters of N models as views (N, rows, columns) of flat (N, width)."""
        return {
            name: flat[:, self.offsets[name] : self.offsets[name] + rows * columns].view(
                -1, rows, columns
            )
            for name, (rows, columns) in self.shapes.items()
        }

    def regions(self, row: Tensor, config: Config) -> dict[str, Tensor]:
        """The values of one row (width,) that belong to a model of this config, as views in the order of its own.

        C (V, e), W1 (t, e, h), b1 (h,), W2 (h, V), b2 (V,) and with `direct` Wd (t, e, V), for the config's sizes t, e
        and h; all other values of the row are padding. A shorter context takes the last positions.
        """
        V, T, E, H = (
            self.vocab_size,
            self.envelope.block_size,
            self.envelope.n_embd,
            self.envelope.n_hidden,
        )
        first, e, h = T - config.block_size, config.n_embd, config.n_hidden
        whole = {name: view[0] for name, view in self.views(row.unsqueeze(0)).items()}
        regions = {
            "C": whole["C"][:V, :e],
            "W1": whole["W1"].view(T, E, H)[first:, :e, :h],
            "b1": whole["b1"][0, :h],
            "W2": whole["W2"][:, :h].T,
            "b2": whole["b2"][:, 0],
        }
        if config.direct:
            regions["Wd"] = whole["Wd"].view(V, T, E)[:, first:, :e].permute(1, 2, 0)
        return regions

    @torch.no_grad()
    def pack(self, model: MLP) -> Tensor:
        """The row (width,) float32 of a model, zero where it is padded."""
        row = torch.zeros(self.width)
        for name, region in self.regions(row, model.config).items():
            region.copy_(getattr(model, name).view(region.shape))
        return row

    @torch.no_grad()
    def unpack(self, row: Tensor, model: MLP) -> None:
        """Copy the values of a row (width,) into a model of its own shapes."""
        for name, region in self.regions(row, model.config).items():
            getattr(model, name).view(region.shape).copy_(region)

    def check_fits(self, config: Config) -> None:
        """Raise ValueError, one sentence, when a config is larger than the envelope."""
        for name in ("block_size", "n_embd", "n_hidden", "batch_size"):
            value, most = getattr(config, name), getattr(self.envelope, name)
            if value > most:
                raise ValueError(
                    f"{name} is {value}, but the engine's envelope holds {name} up to {most}; widen it."
                )
        for name, value in (
            ("direct", config.direct),
            ("dropout", config.dropout > 0),
            ("ema", config.ema > 0),
        ):
            if value and not getattr(self.envelope, name):
                raise ValueError(
                    f"{name} is {getattr(config, name)}, but the engine's envelope has no {name}; add it."
                )


def check_envelope(envelope: Envelope) -> None:
    """Raise ValueError, one sentence, when an envelope holds no model at all."""
    for name in ("block_size", "n_embd", "n_hidden", "batch_size"):
        if getattr(envelope, name) < 1:
            raise ValueError(
                f"the envelope's {name} must be at least 1, but got {name}={getattr(envelope, name)}."
            )
