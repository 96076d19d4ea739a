"""Layout of a model's parameters in a row of a stacked tensor, the same for models of all sizes."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from makemore.config import Config
from makemore.engines.base import Envelope
from makemore.model import MLP

ALIGNMENT = 16  # values; in float32 each parameter then starts at a 64-byte cache line
SIZES = ("block_size", "n_embd", "n_hidden", "batch_size")  # the fields that an envelope limits


class Layout:
    """One row of `width` values holds one model, padded with zeros to the envelope's T, E and H.

    Shapes in the row: C (V + 1, E), W1 (T * E, H), b1 (1, H), W2 (V, H), b2 (V, 1), Wd (V, T * E).
    The extra row of C is the embedding of context positions that a smaller block size does not use.
    W2 and Wd are transposed, because on a CPU a product is up to 1.7 times faster if the inner
    dimension of its result is not the odd V.

    The padding stays zero in training without masks. A padded hidden unit has a zero column in W1
    and a zero row in W2, so its activation and all its gradients are exactly 0. The same holds for
    padded embedding features. It also holds for unused context positions: their embedding and their
    rows of W1 are both 0.

    Attributes:
        envelope: the largest model that fits.
        vocab_size: number of symbols, V.
        shapes: (rows, columns) of each parameter in a row.
        offsets: the position of each parameter's first value in a row.
        width: number of values in a row.
    """

    def __init__(self, envelope: Envelope, vocab_size: int) -> None:
        self.envelope = envelope
        self.vocab_size = vocab_size
        T, E, H, V = envelope.block_size, envelope.n_embd, envelope.n_hidden, vocab_size
        self.shapes = {"C": (V + 1, E), "W1": (T * E, H), "b1": (1, H), "W2": (V, H), "b2": (V, 1)}
        if envelope.direct:
            self.shapes["Wd"] = (V, T * E)

        self.offsets = {}
        end = 0
        for name, (rows, columns) in self.shapes.items():
            self.offsets[name] = end
            end += -(-rows * columns // ALIGNMENT) * ALIGNMENT

        # C is first and the width is a multiple of E, so the embeddings of all models are rows of
        # one table.
        step = math.lcm(E, ALIGNMENT)
        self.width = -(-end // step) * step

    def views(self, flat: Tensor) -> dict[str, Tensor]:
        """Return the parameters of N models as views (N, rows, columns) of flat (N, width)."""
        views = {}
        for name, (rows, columns) in self.shapes.items():
            start = self.offsets[name]
            views[name] = flat[:, start : start + rows * columns].view(-1, rows, columns)
        return views

    def regions(self, row: Tensor, config: Config) -> dict[str, Tensor]:
        """Return the values of one row (width,) that belong to a config's model, as views.

        All other values of the row are padding. A shorter context uses the last positions.

        Returns:
            C (V, e), W1 (t, e, h), b1 (h,), W2 (h, V), b2 (V,) and with `direct` Wd (t, e, V), for
            the config's block size t, embedding features e and hidden units h. The order of values
            is that of `MLP`.
        """
        V = self.vocab_size
        T = self.envelope.block_size
        E = self.envelope.n_embd
        H = self.envelope.n_hidden
        first = T - config.block_size
        e = config.n_embd
        h = config.n_hidden
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
        """Return the row (width,) float32 of a model; the padding is zero."""
        row = torch.zeros(self.width)
        for name, region in self.regions(row, model.config).items():
            region.copy_(getattr(model, name).view(region.shape))
        return row

    @torch.no_grad()
    def unpack(self, row: Tensor, model: MLP) -> None:
        """Copy the values of a row (width,) into the parameters of a model."""
        for name, region in self.regions(row, model.config).items():
            getattr(model, name).view(region.shape).copy_(region)

    def check_fits(self, config: Config) -> None:
        """Check that a config's model fits into the envelope.

        Raises:
            ValueError: a size or an option is larger than the envelope; names the field and both
                values.
        """
        for name in SIZES:
            value = getattr(config, name)
            limit = getattr(self.envelope, name)
            if value > limit:
                raise ValueError(
                    f"{name} is {value}, but the engine's envelope allows {name} up to {limit}; "
                    "make the engine with a larger envelope."
                )
        for name in ("direct", "dropout", "ema"):
            value = getattr(config, name)
            if value > 0 and not getattr(self.envelope, name):
                raise ValueError(
                    f"{name} is {value}, but the engine's envelope has no {name}; "
                    f"make the engine with {name}=True in the envelope."
                )


def check_envelope(envelope: Envelope) -> None:
    """Check that every size of an envelope is at least 1.

    Raises:
        ValueError: a size is below 1; names it.
    """
    for name in SIZES:
        value = getattr(envelope, name)
        if value < 1:
            raise ValueError(f"the envelope's {name} must be at least 1, but got {name}={value}.")
