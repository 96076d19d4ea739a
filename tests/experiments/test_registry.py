"""Versions of the registered model, their aliases, and what MLflow refuses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from experiments.models import open_model
from experiments.registry import MODEL, find_champion, register
from experiments.retraining.results import Retraining, SeedResult
from experiments.retraining.tracking import entry_of
from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import read_config
from makemore.data import Corpus, load_corpus
from makemore.errors import UserError
from makemore.model import MLP
from makemore.sampling import sample_words
from makemore.trainer import train
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from tests.conftest import Ran

Retrain = Callable[..., Any]


def alias(name: str) -> Any:
    return connect(None).get_model_version_by_alias(MODEL, name)


def registered_as(ran: Ran) -> tuple[str, str]:
    return ran.json["registered"]["version"], ran.json["registered"]["alias"]


def test_only_lower_dev_loss_makes_a_champion(config: Path, retrain: Retrain) -> None:
    ran = retrain(config, "--steps", 20, "--json")
    first = ran.json["mean"]["dev_loss"]
    assert registered_as(ran) == ("1", "champion")
    assert (
        "Registered as version 1 of makemore-mlp, champion: "
        f"the first champion, with dev loss {first:.4f}." in ran.err
    )
    # The same model does not beat itself.
    assert registered_as(retrain(config, "--steps", 20, "--json")) == ("2", "challenger")

    ran = retrain(config, "--steps", 4, "--json")
    loss = ran.json["mean"]["dev_loss"]
    assert registered_as(ran) == ("3", "challenger")
    assert (
        f"its dev loss {loss:.4f} is not below the {first:.4f} of the champion, version 1."
        in ran.err
    )

    ran = retrain(config, "--steps", 200, "--json")
    loss = ran.json["mean"]["dev_loss"]
    assert registered_as(ran) == ("4", "champion")
    assert f"its dev loss {loss:.4f} is below the {first:.4f} of version 1." in ran.err


def test_incomparable_models_are_challengers(config: Path, retrain: Retrain, run_file: Any) -> None:
    assert registered_as(retrain(config, "--json")) == ("1", "champion")

    # A model that was trained on dev words has no dev loss to compare.
    ran = retrain(config, "--steps", 400, "--on", "train+dev", "--json")
    assert registered_as(ran) == ("2", "challenger")
    assert "it has no dev loss to compare with the champion's" in ran.err

    # Losses on other words are not comparable, even if they are lower.
    Path("same.txt").write_text("anna\n" * 50)
    ran = run_file("experiments/retrain.py", config, "--names", "same.txt", "--json")
    assert ran.json["mean"]["dev_loss"] < float(alias("champion").tags["dev_loss"])
    assert registered_as(ran) == ("3", "challenger")
    assert "the champion, version 1, was trained on other words" in ran.err
    assert (alias("champion").version, alias("challenger").version) == (1, 3)


def test_version_describes_the_model(config: Path, retrain: Retrain) -> None:
    ran = retrain(config, "--seeds", 3, "--json")

    version = alias("champion")
    row = sorted(ran.json["seeds"], key=lambda row: row["dev_loss"])[1]
    fields = read_config(config).replace(seed=row["seed"]).model_dump()
    tags = {key: version.tags[f"config.{key}"] for key in fields}
    assert tags == {key: str(value) for key, value in fields.items()}
    for name in ("train_loss", "dev_loss", "test_loss"):
        assert float(version.tags[name]) == row[name]
    assert version.tags["data_sha256"] == load_corpus("words.txt").sha256
    assert version.tags["selected"] == "median of 3 seeds by dev_loss"

    # Its source is the seed's own run, which has the model and its dataset among its outputs.
    client = connect(None)
    run = client.get_run(version.run_id)
    assert run.data.params["seed"] == str(row["seed"])
    (output,) = run.outputs.model_outputs
    logged = client.get_logged_model(output.model_id)
    assert logged.status == "READY" and logged.params["n_hidden"] == "16"
    (metric,) = (m for m in logged.metrics if m.key == "dev_loss")
    assert (metric.value, metric.dataset_name) == (row["dev_loss"], "words.txt")

    signature = mlflow.models.get_model_info("models:/makemore-mlp@champion").signature
    assert signature.inputs.input_names() == ["prefix", "n", "temperature", "seed"]
    outputs = ["prefix", "name", "log_likelihood", "nats_per_character"]
    assert signature.outputs.input_names() == outputs


def test_champion_moves_with_its_folder(
    config: Path, retrain: Retrain, workdir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = load_checkpoint(retrain(config, "--json").json["checkpoint"])
    moved = workdir.with_name(f"{workdir.name} moved")
    workdir.rename(moved)
    monkeypatch.chdir(moved)
    # The retraining ran in this process, and mlflow keeps the old address in the environment.
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    source, checkpoint = open_model("models:/makemore-mlp@champion")
    assert isinstance(checkpoint.model, MLP)
    assert checkpoint.model.config == saved.model.config
    # Another program reads it from the new place too.
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri())
    champion = mlflow.pyfunc.load_model("models:/makemore-mlp@champion")
    assert len(champion.predict(pd.DataFrame({"prefix": ["e"], "n": [3]}))) == 3


def test_champion_loads_as_the_saved_checkpoint(config: Path, retrain: Retrain) -> None:
    saved = load_checkpoint(retrain(config, "--json").json["checkpoint"])

    champion = mlflow.pyfunc.load_model("models:/makemore-mlp@champion")
    answer = champion.predict(pd.DataFrame({"prefix": [""], "n": [9]}))

    assert list(answer.name) == sample_words(saved.model, saved.vocab, 9, seed=0)


def test_generate_takes_the_champion_after_another_retraining(
    config: Path, retrain: Retrain, run_file: Any
) -> None:
    best = load_checkpoint(retrain(config, "--steps", 200, "--json").json["checkpoint"])
    Path("other.toml").write_text(config.read_text())
    newer = retrain("other.toml", "--steps", 4, "--json")
    assert registered_as(newer) == ("2", "challenger")

    ran = run_file("experiments/generate.py", "--n", 9, "--names", "words.txt", "--json")

    names = [row["name"] for row in ran.json["names"]]
    assert names == sample_words(best.model, best.vocab, 9, seed=1)
    assert ran.json["model"] == "models:/makemore-mlp@champion"
    assert "version 1 is the champion in MLflow's registry" in ran.err


def test_registration_is_optional(config: Path, retrain: Retrain) -> None:
    ran = retrain(config, "--no-register", "--json")

    assert (ran.code, ran.json["registered"]) == (0, None)
    assert "Registered" not in ran.err
    client = connect(None)
    assert client.search_registered_models() == []
    assert find_champion(client) is None


def test_refused_model_is_a_user_error(config: Path, small_corpus: Corpus) -> None:
    trained = train(read_config(config), small_corpus, device="cpu")
    checkpoint = save_checkpoint("x.safetensors", trained.model, small_corpus.vocab)
    dataset = {"name": "", "sha256": "", "source": ""}
    seeds = [SeedResult(trained, {"dev_loss": 2.0}, np.zeros(1))]
    retraining = Retraining("x", read_config(config), {}, dataset, seeds)

    with pytest.raises(UserError) as refused:
        register(connect(None), "999", "no-such-run", entry_of(retraining), checkpoint)

    message = str(refused.value)
    assert message.startswith("MLflow did not take the model 'makemore-mlp': ")
    assert "999" in message and "\n" not in message
