"""Which model a script loads: a file, a registered one, the champion, or the newest checkpoint."""

from __future__ import annotations

import os
import pickle
from pathlib import Path

import pytest

from experiments.logged_model import save_served
from experiments.models import open_model
from experiments.registry import CHAMPION, MODEL
from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.ensemble import Trained
from makemore.errors import UserError
from makemore.model import MLP
from makemore.words import Vocab
from studies.harness.tracking.connection.connect import connect

VOCAB = Vocab("abcdefghijklmnopqrstuvwxyz")
CHECKPOINTS = Path("mlruns", "checkpoints")


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def save(path: Path | str, seed: int) -> Path:
    """Save a model that its seed identifies."""
    config = Config(block_size=2, n_embd=3, n_hidden=8, init="kaiming", seed=seed)
    return save_checkpoint(path, MLP(config, len(VOCAB)), VOCAB)


def register_folder(name: str, folder: Path) -> None:
    """Make a folder the champion of a registered model."""
    client = connect(None)
    client.create_registered_model(name)
    version = client.create_model_version(name, folder.absolute().as_uri())
    client.set_registered_model_alias(name, CHAMPION, version.version)


def config_of(trained: Trained) -> Config:
    assert isinstance(trained.model, MLP)
    return trained.model.config


def seed_of(source: str | None) -> int:
    return config_of(open_model(source)[1]).seed


def refusal(source: str | None) -> str:
    with pytest.raises(UserError) as refused:
        open_model(source)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def test_newest_checkpoint_is_used_without_champion(capsys: pytest.CaptureFixture[str]) -> None:
    for age, name in enumerate(("b", "a", "c")):
        path = save(CHECKPOINTS / f"{name}.safetensors", seed=age)
        os.utime(path, (1000 - age, 1000 - age))

    source, checkpoint = open_model(None)

    assert (source, config_of(checkpoint).seed) == ("mlruns/checkpoints/b.safetensors", 0)
    assert capsys.readouterr().err == (
        "Using mlruns/checkpoints/b.safetensors: it is the newest checkpoint, "
        "and MLflow's registry has no champion.\n"
    )
    # Looking for a champion makes no database.
    assert not Path("mlruns", "mlflow.db").exists()
    # A registry without a champion changes nothing.
    connect(None).create_registered_model(MODEL)
    assert seed_of(None) == 0


def test_champion_is_preferred_to_newest_checkpoint(capsys: pytest.CaptureFixture[str]) -> None:
    save_served(Path("served"), save("champion.safetensors", seed=7))
    register_folder(MODEL, Path("served"))
    save(CHECKPOINTS / "new.safetensors", seed=8)
    capsys.readouterr()

    source, checkpoint = open_model(None)

    assert (source, config_of(checkpoint).seed) == ("models:/makemore-mlp@champion", 7)
    assert capsys.readouterr().err == (
        "Using models:/makemore-mlp@champion: version 1 is the champion in MLflow's registry.\n"
    )


def test_given_model_is_loaded_without_remark(capsys: pytest.CaptureFixture[str]) -> None:
    assert seed_of(str(save("mine.safetensors", seed=5))) == 5
    assert capsys.readouterr().err == ""


def test_registered_model_loads_by_alias_and_version() -> None:
    save_served(Path("served"), save("x.safetensors", seed=3))
    register_folder("served", Path("served"))

    assert seed_of("models:/served@champion") == seed_of("models:/served/1") == 3
    for uri in ("models:/served@none", "models:/nothing@champion", "models:/served/7"):
        assert refusal(uri).startswith(f"{uri}: cannot be loaded from MLflow (")
    assert "give models:/NAME@ALIAS or models:/NAME/VERSION" in refusal("models:/served")


def test_registered_model_of_another_project_is_refused() -> None:
    Path("bare").mkdir()
    Path("bare", "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
    register_folder("bare", Path("bare"))

    assert "holds 0 safetensors files instead of one" in refusal("models:/bare@champion")


def test_incomplete_and_foreign_files_are_refused() -> None:
    raw = save("whole.safetensors", seed=1).read_bytes()
    Path("short.safetensors").write_bytes(raw[:-7])
    Path("pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert load_checkpoint("whole.safetensors")

    for name in ("short.safetensors", "pickle.safetensors"):
        assert refusal(name).startswith(f"{name}: is cut short or not a safetensors file")
    assert refusal("gone.safetensors").startswith("gone.safetensors: no such file")


def test_missing_model_is_refused() -> None:
    assert refusal(None).startswith("mlruns/checkpoints: holds no checkpoint yet")


def test_unreachable_registry_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "nowhere")
    save(CHECKPOINTS / "new.safetensors", seed=8)

    assert "tracking URI 'nowhere' has no scheme" in refusal(None)
