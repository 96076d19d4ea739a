"""Layout of a model in a row: packing, padding, and checks of sizes."""

from __future__ import annotations

import pytest
import torch

from makemore.config import Config
from makemore.engines.base import Envelope
from makemore.engines.batched.layout import Layout, check_envelope
from makemore.model import MLP

V = 9
ENVELOPE = Envelope(block_size=5, n_embd=6, n_hidden=7, batch_size=8, direct=True)


@pytest.mark.parametrize("direct", [False, True])
@pytest.mark.parametrize(("block_size", "n_embd", "n_hidden"), [(5, 6, 7), (1, 1, 1), (3, 4, 2)])
def test_unpack_inverts_pack(direct: bool, block_size: int, n_embd: int, n_hidden: int) -> None:
    config = Config(block_size=block_size, n_embd=n_embd, n_hidden=n_hidden, direct=direct)
    layout = Layout(ENVELOPE, V)
    model = MLP(config, V)
    row = layout.pack(model)
    other = MLP(config.replace(seed=1), V)
    layout.unpack(row, other)
    assert torch.equal(other.flat, model.flat)
    # All other values of the row are padding and are zero.
    assert int((row != 0).sum()) == int((model.flat != 0).sum())


# The forward pass over the padded row, with the extra symbol before the context.
def test_padded_model_has_same_logits() -> None:
    config = Config(block_size=3, n_embd=4, n_hidden=2, direct=True)
    layout = Layout(ENVELOPE, V)
    model = MLP(config, V)
    p = {name: view[0] for name, view in layout.views(layout.pack(model).unsqueeze(0)).items()}
    X = torch.randint(0, V, (10, 3), generator=torch.Generator().manual_seed(0))
    e = p["C"][torch.cat([torch.full((10, 2), V), X], 1)].flatten(1)
    logits = torch.tanh(e @ p["W1"] + p["b1"]) @ p["W2"].T + p["b2"].T + e @ p["Wd"].T
    torch.testing.assert_close(logits, model(X))


@pytest.mark.parametrize("n_embd", [1, 3, 10, 16, 31])
def test_embeddings_are_rows_of_one_table(n_embd: int) -> None:
    layout = Layout(Envelope(block_size=2, n_embd=n_embd, n_hidden=3, batch_size=4), V)
    flat = torch.arange(2.0 * layout.width).view(2, -1)
    table = flat.view(-1, n_embd)
    assert torch.equal(table[layout.width // n_embd + V], layout.views(flat)["C"][1, V])


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(block_size=6),
            "block_size is 6, but the engine's envelope allows block_size up to 5",
        ),
        (dict(n_embd=7), "n_embd is 7, but the engine's envelope allows n_embd up to 6"),
        (dict(n_hidden=8), "n_hidden is 8, but the engine's envelope allows n_hidden up to 7"),
        (
            dict(batch_size=9),
            "batch_size is 9, but the engine's envelope allows batch_size up to 8",
        ),
        (dict(dropout=0.5), "dropout is 0.5, but the engine's envelope has no dropout"),
    ],
)
def test_misfit_names_field_and_limit(changes: dict, message: str) -> None:
    fits = Config(block_size=5, n_embd=6, n_hidden=7, batch_size=8, direct=True)
    layout = Layout(ENVELOPE, V)
    layout.check_fits(fits)
    with pytest.raises(ValueError, match=message):
        layout.check_fits(fits.replace(**changes))


def test_empty_envelope_is_refused() -> None:
    with pytest.raises(
        ValueError, match="the envelope's n_hidden must be at least 1, but got n_hidden=0"
    ):
        check_envelope(Envelope(block_size=1, n_embd=1, n_hidden=0, batch_size=1))
