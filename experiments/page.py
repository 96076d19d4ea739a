"""Write a trained model as one HTML file that generates names in the browser.

The page holds the weights and uses no network.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import base64
import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

from cyclopts import Parameter

from makemore.errors import UserError, check_output, writing
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from experiments.packing import Packed
    from makemore.ensemble import Trained
    from makemore.model import MLP

TEMPLATE = Path(__file__).with_name("page_template.html")
MAX_MB = 3.0  # of a page; larger ones open slowly on a phone
SCRIPT = Path(__file__).with_name("page_template.js")


@dataclass
class Args:
    """Write a page that generates names in the browser, without a network."""

    source: str | None = None
    """Checkpoint, ensemble or registered model. Default: the champion or the newest checkpoint."""
    _: KW_ONLY
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("names.html")
    """HTML file to write; an existing one is overwritten."""
    tracking_uri: str | None = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    out = check_output(args.out, "--out")
    from experiments.models import open_model
    from makemore.model_class import NeedsClass

    try:
        source, trained = open_model(args.source, args.tracking_uri)
    except NeedsClass:
        raise UserError(
            f"{args.source or 'the newest checkpoint'}: its page cannot be written, because pages "
            "compute the MLP only; give an MLP or an ensemble, or use experiments/generate.py."
        ) from None
    packed = pack_all(trained)
    page = make_page(source, trained, packed)
    size_mb = len(page.encode()) / 1e6
    if size_mb > MAX_MB:
        raise UserError(
            f"{source}: its page would have {size_mb:.1f} MB, more than {MAX_MB:g} MB; "
            "give a smaller model, or an ensemble of a smaller --size."
        )
    with writing(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")

    parameters = sum(model.flat.numel() for model in members_of(trained)[0])
    bits = "/".join(str(n) for n in sorted({part.bits for part in packed}))
    print(
        f"{out}: {1000 * size_mb:,.0f} kB with the {parameters:,} parameters of {source}.\n"
        f"Weights are stored in {bits} bits, "
        f"which changes probabilities by at most {max(part.error for part in packed):.2g}.\n"
        "Open it in a browser; it needs no network."
    )
    return 0


def members_of(trained: Trained) -> tuple[list[MLP], list[float]]:
    """Return the networks and their weights; a single network has the weight 1."""
    from makemore.ensemble import Ensemble

    if isinstance(trained.model, Ensemble):
        return list(trained.model.models), list(trained.model.weights)
    return [cast("MLP", trained.model)], [1.0]


def pack_all(trained: Trained) -> list[Packed]:
    """Return the packed weights of each network."""
    from experiments.packing import contexts, pack

    X = contexts(trained)
    return [pack(model, X[:, -model.block_size :]) for model in members_of(trained)[0]]


def make_page(source: str, trained: Trained, packed: list[Packed]) -> str:
    """Return the page's HTML.

    Args:
        source: where the model was read from, for display.
        packed: the weights, from `pack_all`.
    """
    import numpy as np

    from experiments.packing import pack_counts, principal_directions
    from makemore.ensemble import Ensemble

    models, weights = members_of(trained)
    first = models[int(np.argmax(weights))]  # whose letters are on the map
    places, shares = principal_directions(first.C.detach().numpy())
    is_uri = "://" in source or source.startswith("models:/")
    data = {
        "source": source if is_uri else Path(source).name,
        "symbols": list(trained.vocab.symbols),
        "block_size": trained.model.block_size,
        "n_embd": first.config.n_embd,
        "n_params": sum(model.flat.numel() for model in models),
        "dev_loss": _dev_loss(trained.metadata),
        "places": np.round(places, 4).tolist(),
        "shares": shares,
        "members": [
            _member(model, weight, part)
            for model, weight, part in zip(models, weights, packed, strict=True)
        ],
        "counts": None,
    }
    if isinstance(trained.model, Ensemble) and trained.model.counts is not None:
        counts = pack_counts(trained.model.counts)
        data["counts"] = {**counts, "weight": trained.model.counts_weight}
    # Escape "<", so that no text of the model can end the <script> element that holds it.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")

    page = TEMPLATE.read_text(encoding="utf-8")
    page = page.replace("__SCRIPT__", SCRIPT.read_text(encoding="utf-8"))
    return page.replace("__MODEL__", text)


def _member(model: MLP, weight: float, packed: Packed) -> dict[str, Any]:
    """Return a network as the page's script reads it."""
    return {
        "weight": weight,
        "block_size": model.config.block_size,
        "n_embd": model.config.n_embd,
        "tensors": packed.tensors,
        "scales": base64.b64encode(packed.scales).decode("ascii"),
        "integers": base64.b64encode(packed.integers).decode("ascii"),
    }


def _dev_loss(metadata: dict[str, Any]) -> float | None:
    """Return the dev loss that a checkpoint records, or None."""
    losses = metadata.get("losses")
    value = losses.get("dev_loss") if isinstance(losses, dict) else metadata.get("dev_loss")
    return float(value) if isinstance(value, int | float) else None


if __name__ == "__main__":
    run_script(Args, main)
