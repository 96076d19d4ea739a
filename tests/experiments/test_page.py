"""page.py: the content of the page, and refused input."""

from __future__ import annotations

import base64
import json
import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from experiments.packing import contexts, pack
from makemore.checkpoint import save_checkpoint
from makemore.ensemble import Ensemble, save
from tests.conftest import Ran
from tests.experiments.synthetic import make_checkpoint, make_ensemble, page_of

SCRIPT = "experiments/page.py"


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_page_of_a_large_model_is_under_a_megabyte() -> None:
    checkpoint = make_checkpoint(block_size=10, n_embd=24, n_hidden=750, gain=40.0)
    assert checkpoint.model.flat.numel() > 200_000

    assert len(page_of(checkpoint).encode()) < 1_000_000


def test_page_loads_nothing_from_elsewhere() -> None:
    page = page_of(make_checkpoint())

    # The namespace of SVG is a name, not an address.
    assert re.findall(r"https?://[^\"' ]*", page) == ["http://www.w3.org/2000/svg"]
    assert "default-src 'none'" in page
    elements = r"<(img|iframe|object|embed|base)\b|<script[^>]*\bsrc=|@import|url\("
    assert not re.search(elements, page)


def test_page_holds_the_chosen_model(run_file: Callable[..., Ran]) -> None:
    checkpoint = make_checkpoint()
    path = save_checkpoint(
        "mlruns/checkpoints/mine.safetensors", checkpoint.model, checkpoint.vocab, dev_loss=2.25
    )

    ran = run_file(SCRIPT, "-o", "new/names.html")

    assert ran.code == 0 and str(path) in ran.out
    assert ran.err.startswith(f"Using {path}: it is the newest checkpoint, ")
    page = Path("new/names.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    model = json.loads(data[1])
    assert (model["source"], model["dev_loss"]) == (path.name, 2.25)
    assert model["n_params"] == checkpoint.model.flat.numel()
    packed = pack(checkpoint.model, contexts(checkpoint))
    assert base64.b64decode(model["members"][0]["integers"]) == packed.integers


def test_page_of_an_ensemble_has_all_members_and_counts(run_file: Callable[..., Ran]) -> None:
    ensemble = make_ensemble().model
    assert isinstance(ensemble, Ensemble)
    save("both.safetensors", ensemble)

    ran = run_file(SCRIPT, "both.safetensors", "-o", "names.html")

    total = sum(model.flat.numel() for model in ensemble.models)
    assert ran.code == 0 and f"the {total:,} parameters of both.safetensors" in ran.out
    page = Path("names.html").read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="model">(.*?)</script>', page, re.DOTALL)
    assert data is not None
    model = json.loads(data[1])
    assert [member["weight"] for member in model["members"]] == [0.25, 0.75]
    assert (model["counts"]["weight"], model["counts"]["context"]) == (0.4, 4)


def test_large_page_is_refused_with_its_size(run_file: Callable[..., Ran]) -> None:
    checkpoint = make_checkpoint(block_size=10, n_embd=30, n_hidden=6000, gain=1.0)
    save_checkpoint("m.safetensors", checkpoint.model, checkpoint.vocab)

    refusal = run_file(SCRIPT, "m.safetensors").refusal

    assert re.match(r"m\.safetensors: its page would have \d\.\d MB, more than 3 MB; ", refusal)
    assert not Path("names.html").exists()


def test_missing_model_is_refused(run_file: Callable[..., Ran]) -> None:
    assert "holds no checkpoint yet" in run_file(SCRIPT).refusal
    assert "gone: no such file" in run_file(SCRIPT, "gone").refusal


def test_bad_output_is_refused(run_file: Callable[..., Ran]) -> None:
    Path("folder").mkdir()
    Path("file").touch()
    os.mkfifo("pipe")

    refusals = {
        "folder": "folder: is a directory; give --out the path of a file.",
        "pipe": "pipe: is not a regular file; give --out another path.",
        "/dev/null": "/dev/null: is not a regular file; give --out another path.",
    }
    for out, sentence in refusals.items():
        assert run_file(SCRIPT, "-o", out).refusal == sentence
    assert run_file(SCRIPT, "-o", "file/x").refusal.startswith("file/x: cannot be written (")
