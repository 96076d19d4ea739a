"""What the page that makes up names holds, and the script that writes it."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from experiments.page import MOST_BITS, TOLERANCE, Packed, contexts, pack, principal_directions
from makemore.checkpoint import save_checkpoint
from tests.conftest import Ran
from tests.experiments.synthetic import KINDS, make_checkpoint, page_of


def unpack(packed: Packed) -> dict[str, np.ndarray]:
    """The weights, read by the words of Packed's docstring."""
    weights, at, row = {}, 0, 0
    scales = np.frombuffer(packed.scales, "<f4")
    for tensor in packed.tensors:
        n, bits = tensor["rows"] * tensor["columns"], tensor["bits"]
        size = -(-n * bits // 8)
        whole = int.from_bytes(packed.integers[at : at + size], "big") >> (8 * size - n * bits)
        q = np.array([(whole >> (bits * (n - 1 - i))) & (2**bits - 1) for i in range(n)]) - 2 ** (
            bits - 1
        )
        q = q.reshape(tensor["rows"], tensor["columns"])
        weights[tensor["name"]] = q * scales[row : row + tensor["rows"], None]
        at, row = at + size, row + tensor["rows"]
    assert (at, row) == (len(packed.integers), len(scales))
    return weights


@pytest.mark.parametrize("kind", KINDS)
def test_the_integers_give_the_weights_back_as_exactly_as_is_said(kind: str) -> None:
    checkpoint = KINDS[kind]()
    packed = pack(checkpoint.model, contexts(checkpoint))
    weights = unpack(packed)

    for name, parameter in checkpoint.model.named_parameters():
        exact = np.atleast_2d(parameter.detach().numpy())
        step = np.abs(exact).max(1, keepdims=True) / (
            2 ** ((packed.bits if name[0] == "W" else MOST_BITS) - 1) - 1
        )
        assert np.all(np.abs(weights[name] - exact) <= 0.5001 * step + 1e-30), name
    assert packed.error <= TOLERANCE and packed.bits < MOST_BITS


def test_a_model_that_is_surer_gets_more_bits() -> None:
    bits = []
    for gain in (1.0, 30.0):
        checkpoint = make_checkpoint(gain=gain)
        bits.append(pack(checkpoint.model, contexts(checkpoint)).bits)

    assert 10 <= bits[0] < bits[1]


def test_a_model_of_200_000_parameters_makes_a_page_under_a_megabyte() -> None:
    checkpoint = make_checkpoint(block_size=10, n_embd=24, n_hidden=750, gain=40.0)
    assert checkpoint.model.flat.numel() > 200_000

    assert len(page_of(checkpoint).encode()) < 1_000_000


def test_the_page_refers_to_nothing_outside_itself() -> None:
    page = page_of(make_checkpoint())

    assert re.findall(r"https?://[^\"' ]*", page) == [
        "http://www.w3.org/2000/svg"
    ]  # a name, not an address
    assert "default-src 'none'" in page
    assert not re.search(
        r"<(img|iframe|object|embed|base)\b|<script[^>]*\bsrc=|@import|url\(", page
    )


def test_principal_directions_are_those_of_the_covariance() -> None:
    C = (
        torch.randn(27, 6, generator=torch.Generator().manual_seed(0)).numpy()
        * [5, 1, 3, 0.1, 0.2, 0.3]
        + 7
    )

    places, shares = principal_directions(C)

    variances, directions = np.linalg.eigh(np.cov(C.T))
    expected = (C - C.mean(0)) @ directions[:, [-1, -2]]
    assert np.allclose(np.abs(places), np.abs(expected))
    assert np.allclose(shares, variances[[-1, -2]] / variances.sum())
    assert np.all(places.max(0) == np.abs(places).max(0))  # the sign is settled
    flat, (first, second) = principal_directions(C[:, :1])
    assert (first, second) == (pytest.approx(1), 0) and np.all(flat[:, 1] == 0)
    assert principal_directions(np.ones((3, 2), np.float32))[1] == [0, 0]


def test_the_script_writes_the_page_of_the_newest_checkpoint(
    run_file: Callable[..., Ran], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    script = "experiments/page.py"
    assert "holds no checkpoint yet" in run_file(script).refusal
    checkpoint = make_checkpoint()
    path = save_checkpoint(
        "mlruns/checkpoints/mine.safetensors", checkpoint.model, checkpoint.vocab, dev_loss=2.25
    )

    ran = run_file(script, "-o", "new/names.html")

    assert ran.code == 0 and str(path) in ran.out
    page = Path("new/names.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    model = json.loads(data[1])
    assert (model["source"], model["dev_loss"], model["n_params"]) == (
        path.name,
        2.25,
        checkpoint.model.flat.numel(),
    )
    assert (
        base64.b64decode(model["integers"]) == pack(checkpoint.model, contexts(checkpoint)).integers
    )
    assert "new: cannot be written" in run_file(script, "-o", "new").refusal
    assert "gone: no such file" in run_file(script, "gone").refusal
    assert "cannot be written" in run_file(script, "-o", f"{path}/names.html").refusal
