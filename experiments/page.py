"""Write a trained model as one HTML file that generates names in the browser.

The page holds the weights and uses no network.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import base64
import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from makemore.errors import check_output, writing
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from experiments.packing import Packed
    from makemore.checkpoint import Checkpoint

TEMPLATE = Path(__file__).with_name("page_template.html")
SCRIPT = Path(__file__).with_name("page_template.js")


@dataclass
class Args:
    """Write a page that generates names in the browser, without a network."""

    model: str | None = None
    """Checkpoint file or registered model. Default: the champion, else the newest checkpoint."""
    _: KW_ONLY
    out: Annotated[Path, Parameter(name=("--out", "-o"))] = Path("names.html")
    """HTML file to write; an existing one is overwritten."""
    tracking_uri: str | None = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    out = check_output(args.out, "--out")
    from experiments.models import open_model
    from experiments.packing import contexts, pack

    source, checkpoint = open_model(args.model, args.tracking_uri)
    packed = pack(checkpoint.model, contexts(checkpoint))
    page = make_page(source, checkpoint, packed)
    with writing(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        out.write_text(page, encoding="utf-8")

    size_kb = out.stat().st_size / 1000
    parameters = checkpoint.model.flat.numel()
    print(
        f"{out}: {size_kb:,.0f} kB with the {parameters:,} parameters of {source}.\n"
        f"Weights are stored in {packed.bits} bits, "
        f"which changes probabilities by at most {packed.error:.2g}.\n"
        "Open it in a browser; it needs no network."
    )
    return 0


def make_page(source: str, checkpoint: Checkpoint, packed: Packed) -> str:
    """Return the page's HTML.

    Args:
        source: where the model was read from, for display.
        packed: the model's weights, from `pack`.
    """
    import numpy as np

    from experiments.packing import principal_directions

    model = checkpoint.model
    config = model.config
    places, shares = principal_directions(model.C.detach().numpy())
    is_uri = "://" in source or source.startswith("models:/")
    data = {
        "source": source if is_uri else Path(source).name,
        "symbols": list(checkpoint.vocab.symbols),
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
    # Escape "<", so that no text of the model can end the <script> element that holds it.
    text = json.dumps(data, ensure_ascii=False, separators=(",", ":")).replace("<", "\\u003c")

    page = TEMPLATE.read_text(encoding="utf-8")
    page = page.replace("__SCRIPT__", SCRIPT.read_text(encoding="utf-8"))
    return page.replace("__MODEL__", text)


def _dev_loss(metadata: dict[str, Any]) -> float | None:
    """Return the dev loss that a checkpoint records, or None."""
    losses = metadata.get("losses")
    value = losses.get("dev_loss") if isinstance(losses, dict) else metadata.get("dev_loss")
    return float(value) if isinstance(value, int | float) else None


if __name__ == "__main__":
    run_script(Args, main)
