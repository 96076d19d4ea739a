"""A trained model as one HTML file that generates names in the browser: its weights are inside, and no network is used.

The weights are integers of as few bits as keep the next-character probabilities within TOLERANCE of the model's.
"""

from __future__ import annotations

import base64
import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import Parameter

from experiments.generate import open_model
from makemore.checkpoint import Checkpoint
from makemore.data import Examples
from makemore.errors import UserError
from makemore.model import MLP
from makemore.sampling import sample_words
from studies.harness.cli.script import run_script

TEMPLATE, SCRIPT = (
    Path(__file__).with_name(f"page_template.{ending}") for ending in ("html", "js")
)
TOLERANCE = 4e-5  # of a probability, on contexts that the model itself writes; the page promises 1e-4 on all
FEWEST_BITS, MOST_BITS = (
    10,
    24,
)  # an integer of 24 bits is as exact as a float32's 24 bits of significand
N_WORDS, N_CONTEXTS = 1000, 4096  # what the tolerance is measured on


@dataclass
class Args:
    """Write a page that generates names in the browser, without a network."""

    model: str | None = None
    """Checkpoint file or registered model; the newest file in mlruns/checkpoints/ if not given."""
    _: KW_ONLY
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("names.html")
    """Where the page goes."""
    tracking_uri: str | None = None
    """MLflow tracking URI for models:/; the SQLite database in mlruns/ if not given."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    source, checkpoint = open_model(args.model, args.tracking_uri)
    packed = pack(checkpoint.model, contexts(checkpoint))
    page = make_page(source, checkpoint, packed)
    try:
        args.out.parent.mkdir(parents=True, exist_ok=True)
        args.out.write_text(page, encoding="utf-8")
    except (IsADirectoryError, NotADirectoryError, FileExistsError) as error:
        raise UserError(
            f"{args.out}: cannot be written ({error.strerror}); give -o the path of a file."
        ) from None
    size, parameters = args.out.stat().st_size / 1000, checkpoint.model.flat.numel()
    print(
        f"{args.out}: {size:,.0f} kB with the {parameters:,} parameters of {source}.\n"
        f"The matrices are integers of {packed.bits} bits, which moves a probability by up to {packed.error:.2g}.\n"
        "Open it in a browser; it needs no network."
    )
    return 0


@dataclass(frozen=True)
class Packed:
    """A model's weights as integers.

    Attributes:
        tensors: name, rows, columns and bits of each, in the order in which they follow each other.
        integers: row by row, the highest bit first; each tensor begins at a whole byte. An integer q of b bits stands
            for the weight (q - 2^(b-1)) * scale of its row.
        scales: of all rows of all tensors, float32, little-endian.
        bits: of each weight of a matrix.
        error: the largest difference of a probability that was found.
    """

    tensors: list[dict[str, Any]]
    integers: bytes
    scales: bytes
    bits: int
    error: float


def contexts(checkpoint: Checkpoint) -> torch.Tensor:
    """(n, block_size) int64: contexts in which the model finds itself when it writes words, usual and unusual ones."""
    model, vocab = checkpoint.model, checkpoint.vocab
    words = [
        word
        for t in (1.0, 2.0)
        for word in sample_words(model, vocab, N_WORDS, seed=0, temperature=t)
    ]
    X, _ = Examples.of(words, vocab).tensors(model.config.block_size)
    return X[torch.randperm(len(X), generator=torch.Generator().manual_seed(0))[:N_CONTEXTS]]


@torch.no_grad()
def pack(model: MLP, X: torch.Tensor) -> Packed:
    """Write the weights as integers of the fewest bits that keep the probabilities after contexts X (n, T) int64."""
    weights = {
        name: np.atleast_2d(weight.detach().numpy()) for name, weight in model.named_parameters()
    }
    before, rough = model(X).double().softmax(1), MLP(model.config, model.vocab_size)
    for bits in range(FEWEST_BITS, MOST_BITS + 1):
        # The embedding and the biases are few, and an error of the embedding is in every hidden unit.
        widths = {name: bits if name.startswith("W") else MOST_BITS for name in weights}
        rounded = {name: _round(weight, widths[name]) for name, weight in weights.items()}
        for name, parameter in rough.named_parameters():
            q, scale = rounded[name]
            parameter.copy_(torch.from_numpy(q * scale.astype(np.float64)).view_as(parameter))
        error = float((rough(X).double().softmax(1) - before).abs().max())
        if error <= TOLERANCE:
            break
    tensors = [
        {"name": name, "rows": q.shape[0], "columns": q.shape[1], "bits": widths[name]}
        for name, (q, _) in rounded.items()
    ]
    integers = b"".join(_to_bytes(q, widths[name]) for name, (q, _) in rounded.items())
    scales = b"".join(scale.astype("<f4").tobytes() for _, scale in rounded.values())
    return Packed(tensors, integers, scales, bits, error)


def _round(weight: np.ndarray, bits: int) -> tuple[np.ndarray, np.ndarray]:
    """Integers (R, K) of at most 2^(bits-1) - 1 either way for weights (R, K), and each row's scale (R, 1) float32."""
    most = 2 ** (bits - 1) - 1
    scale = np.abs(weight).max(1, keepdims=True) / np.float32(most)
    scale = np.where(scale == 0, np.float32(1), scale)
    return np.clip(np.rint(weight / scale.astype(np.float64)), -most, most).astype(np.int64), scale


def _to_bytes(q: np.ndarray, bits: int) -> bytes:
    shifts = np.arange(bits - 1, -1, -1)
    return np.packbits(
        (((q.ravel() + 2 ** (bits - 1))[:, None] >> shifts) & 1).astype(np.uint8)
    ).tobytes()


def principal_directions(C: np.ndarray) -> tuple[np.ndarray, list[float]]:
    """Where each symbol's embedding stands on the two directions in which the embeddings C (V, E) vary most.

    Returns:
        (V, 2) float64, and each direction's share of the variance. The largest coordinate of a direction is positive.
    """
    centred = C.astype(np.float64) - C.mean(0, dtype=np.float64)
    U, S, _ = np.linalg.svd(centred, full_matrices=False)
    places = np.zeros((len(C), 2))
    k = min(2, len(S))
    places[:, :k] = U[:, :k] * S[:k]
    signs = np.sign(places[np.abs(places).argmax(0), [0, 1]])
    shares = np.zeros(2)
    shares[:k] = S[:k] ** 2 / max(float((S**2).sum()), 1e-300)
    return places * np.where(signs == 0, 1, signs), shares.tolist()


def make_page(source: str, checkpoint: Checkpoint, packed: Packed) -> str:
    """The page's HTML."""
    model, vocab = checkpoint.model, checkpoint.vocab
    places, shares = principal_directions(model.C.detach().numpy())
    config = model.config
    data = {
        "source": source if "://" in source or source.startswith("models:/") else Path(source).name,
        "symbols": list(vocab.symbols),
        "block_size": config.block_size,
        "n_embd": config.n_embd,
        "n_hidden": config.n_hidden,
        "n_params": model.flat.numel(),
        "dev_loss": _dev_loss(checkpoint.metadata),
        "tensors": packed.tensors,
        "places": np.round(places, 4).tolist(),
        "shares": shares,
        "scales": base64.b64encode(packed.scales).decode("ascii"),
        "integers": base64.b64encode(packed.integers).decode("ascii"),
    }
    # No text of the model may end the element that holds it.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")
    page = TEMPLATE.read_text(encoding="utf-8").replace(
        "__SCRIPT__", SCRIPT.read_text(encoding="utf-8")
    )
    return page.replace("__MODEL__", text)


def _dev_loss(metadata: dict[str, Any]) -> float | None:
    losses = metadata.get("losses")
    value = losses.get("dev_loss") if isinstance(losses, dict) else metadata.get("dev_loss")
    return float(value) if isinstance(value, int | float) else None


if __name__ == "__main__":
    run_script(Args, main)
