"""The registry: which version is the champion, what stands beside it, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from experiments.registry import MODEL, register
from experiments.seeds import Replica, Retraining
from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import read_config
from makemore.data import Corpus, load_corpus
from makemore.sampling import sample_words
from makemore.trainer import train
from studies.harness.tracking.client import connect

Retrain = Callable[..., Any]


def alias(name: str) -> Any:
    return connect(None).get_model_version_by_alias(MODEL, name)


def test_only_a_lower_dev_loss_on_the_same_words_makes_a_champion(
    config: Path, retrain: Retrain, run_file: Any
) -> None:
    ran = retrain(config, "--steps", 20, "--json")
    assert ran.json["registered"] == {"version": "1", "alias": "champion"}
    first = ran.json["mean"]["dev_loss"]
    assert (
        f"Registered as version 1 of makemore-mlp, champion: the first, with dev loss {first:.4f}."
        in ran.err
    )
    # The same model once more does not beat itself.
    assert retrain(config, "--steps", 20, "--json").json["registered"] == {
        "version": "2",
        "alias": "challenger",
    }
    ran = retrain(config, "--steps", 4, "--json")
    worse = f"its dev loss {ran.json['mean']['dev_loss']:.4f} does not beat the {first:.4f} of the champion, version 1."
    assert ran.json["registered"] == {"version": "3", "alias": "challenger"} and worse in ran.err
    ran = retrain(config, "--steps", 200, "--json")
    beats = f"its dev loss {ran.json['mean']['dev_loss']:.4f} beats the {first:.4f} of version 1."
    assert ran.json["registered"] == {"version": "4", "alias": "champion"} and beats in ran.err
    # With dev words in training there is no such loss, and losses on other words cannot be compared.
    ran = retrain(config, "--steps", 400, "--on", "train+dev", "--json")
    assert (
        ran.json["registered"]["alias"] == "challenger"
        and "it has no dev loss to beat a champion with" in ran.err
    )
    Path("same.txt").write_text("anna\n" * 50)
    ran = run_file(
        "experiments/retrain.py", config, "--names", "same.txt", "--steps", 200, "--json"
    )
    assert ran.json["mean"]["dev_loss"] < float(alias("champion").tags["dev_loss"])
    assert (
        ran.json["registered"]["alias"] == "challenger"
        and "version 4 was trained on other words" in ran.err
    )
    assert (alias("champion").version, alias("challenger").version) == (4, 6)


def test_a_version_says_what_it_is(config: Path, retrain: Retrain) -> None:
    ran = retrain(config, "--seeds", 3, "--json")
    version, row = alias("champion"), sorted(ran.json["seeds"], key=lambda row: row["dev_loss"])[1]
    fields = read_config(config).replace(seed=row["seed"]).model_dump()
    assert {key: version.tags[f"config.{key}"] for key in fields} == {
        key: str(v) for key, v in fields.items()
    }
    for name in ("train_loss", "dev_loss", "test_loss"):
        assert float(version.tags[name]) == row[name]
    assert version.tags["data_sha256"] == load_corpus("words.txt").sha256
    assert version.tags["selected"] == "median of 3 seeds by dev_loss"
    # Its source is the seed's own run, which has the model, with its dataset, among its outputs.
    run = connect(None).get_run(version.run_id)
    assert run.data.params["seed"] == str(row["seed"]) and len(run.outputs.model_outputs) == 1
    logged = connect(None).get_logged_model(run.outputs.model_outputs[0].model_id)
    assert logged.status == "READY" and logged.params["n_hidden"] == "16"
    (metric,) = (m for m in logged.metrics if m.key == "dev_loss")
    assert (metric.value, metric.dataset_name) == (row["dev_loss"], "words.txt")
    info = mlflow.models.get_model_info("models:/makemore-mlp@champion")
    assert info.signature.inputs.input_names() == ["prefix", "n", "temperature", "seed"]
    assert info.signature.outputs.input_names() == [
        "prefix",
        "name",
        "log_likelihood",
        "nats_per_character",
    ]


def test_the_champion_loads_as_the_checkpoint_that_was_saved(
    config: Path, retrain: Retrain
) -> None:
    saved = load_checkpoint(retrain(config, "--json").json["checkpoint"])
    answer = mlflow.pyfunc.load_model("models:/makemore-mlp@champion").predict(
        pd.DataFrame({"prefix": [""], "n": [9]})
    )
    assert list(answer.name) == sample_words(saved.model, saved.vocab, 9, seed=0)


def test_the_registry_can_be_left_alone(config: Path, retrain: Retrain) -> None:
    ran = retrain(config, "--no-register", "--json")
    assert (ran.code, ran.json["registered"]) == (0, None) and "Registered" not in ran.err
    assert connect(None).search_registered_models() == []


def test_a_model_that_mlflow_refuses_is_a_sentence(config: Path, small_corpus: Corpus) -> None:
    trained = train(read_config(config), small_corpus, device="cpu")
    checkpoint = save_checkpoint("x.safetensors", trained.model, small_corpus.vocab)
    dataset = {"name": "", "sha256": "", "source": ""}
    done = Retraining(
        "x", read_config(config), {}, dataset, [Replica(trained, {"dev_loss": 2.0}, np.zeros(1))]
    )
    with pytest.raises(
        ValueError, match=r"^MLflow did not take the model 'makemore-mlp': .*999"
    ) as refused:
        register(connect(None), "999", "no-such-run", done, checkpoint)
    assert "\n" not in str(refused.value)
