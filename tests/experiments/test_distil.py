"""distil.py: a model trained on the probabilities of another one, and refused input."""

from __future__ import annotations

import hashlib
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.data import load_corpus
from makemore.ensemble import Ensemble, save
from makemore.evaluation import evaluate
from makemore.model import MLP
from makemore.sampling import sample_words
from makemore.trainer import train
from makemore.words import Vocab
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment

VOCAB = Vocab("abcdefgh")
STUDENT = Config(
    block_size=2,
    n_hidden=30,
    optimizer="adamw",
    lr=0.01,
    max_steps=1500,
    eval_interval=250,
    init="kaiming",
    schedule="cosine",
)
Distil = Callable[..., Any]


def true_model(seed: int = 3) -> MLP:
    """Return the model that the words of the tests are sampled from, with uneven probabilities."""
    model = MLP(Config(block_size=2, n_embd=5, n_hidden=40, init="kaiming", seed=seed), len(VOCAB))
    with torch.no_grad():
        model.W2.mul_(30)
        model.b2[0] -= 1  # longer words
    return model


@pytest.fixture
def distil(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_file: Any) -> Distil:
    """Run distil.py on 100 words of the true model, with that model as the teacher."""
    monkeypatch.chdir(tmp_path)
    words = sample_words(true_model(), VOCAB, 200, seed=1)
    words = [word for word in words if word][:100]
    Path("words.txt").write_text("\n".join(words) + "\n")
    Path("student.toml").write_text(STUDENT.to_toml())
    save("e.safetensors", Ensemble((true_model(),), (1.0,), VOCAB, None, 0.0, {}))

    def run(*flags: Any, ensemble: str = "e.safetensors", file: str = "student.toml") -> Any:
        fixed = ("--names", "words.txt", "--device", "cpu")
        return run_file("experiments/distil.py", ensemble, file, *fixed, *flags)

    return run


def test_teacher_that_knows_more_helps(distil: Distil) -> None:
    ran = distil("--seeds", 2, "--weight", 0.9, "--json")

    assert ran.code == 0, ran
    corpus = load_corpus("words.txt")
    loss = evaluate(true_model(), corpus.dev)
    found = ran.json["comparison"]
    assert found["against"] == "without the ensemble"
    # The student without it knows 80 words only.
    assert ran.json["mean"]["dev_loss"] < loss + 0.03
    assert found["difference"] < -0.05
    assert f"Dev loss: {found['sentence']}; 95% interval over words and seeds." in ran.err
    assert ran.json["baselines"] == {"the ensemble": {"dev_loss": pytest.approx(loss)}}
    assert "The test split was not read." in ran.err
    assert set(ran.json["mean"]) == {"train_loss", "dev_loss"}


def test_side_without_ensemble_is_plain_training(distil: Distil) -> None:
    ran = distil("--seeds", 2, "--json")

    corpus = load_corpus("words.txt")
    client = connect(None)
    runs = find_runs(client, get_experiment(client, "retrain"))
    plain = {
        int(run.data.params["seed"]): run.data.metrics["dev_loss"]
        for run in runs
        if run.data.tags.get("config") == "without the ensemble"
    }
    assert len(plain) == 2 and len(runs) == 5
    for seed, loss in plain.items():
        config = STUDENT.replace(seed=seed)
        assert loss == train(config, corpus, device="cpu").best.dev_loss
    difference = ran.json["mean"]["dev_loss"] - statistics.fmean(plain.values())
    assert ran.json["comparison"]["difference"] == pytest.approx(difference, abs=1e-6)


def test_model_and_runs_record_the_teacher(distil: Distil, run_file: Any) -> None:
    ran = distil("--seeds", 1, "--weight", 0.25, "--json")

    teacher = {
        "source": "e.safetensors",
        "sha256": hashlib.sha256(Path("e.safetensors").read_bytes()).hexdigest(),
        "weight": 0.25,
    }
    assert ran.json["teacher"] == teacher
    assert ran.json["checkpoint"] == "mlruns/checkpoints/student-distilled.safetensors"
    checkpoint = load_checkpoint(ran.json["checkpoint"])
    assert checkpoint.metadata["teacher"] == teacher
    loss = evaluate(checkpoint.model, load_corpus("words.txt").dev)
    assert ran.json["seeds"][0]["dev_loss"] == loss

    client = connect(None)
    tags = {f"teacher.{key}": str(value) for key, value in teacher.items()}
    run = client.get_run(ran.json["mlflow_run_id"])
    assert run.data.tags["kind"] == "distil" and tags.items() <= run.data.tags.items()
    assert run.data.tags["test_split"] == "not read"
    version = client.get_model_version("makemore-mlp", ran.json["registered"]["version"])
    assert tags.items() <= version.tags.items()
    # The logged config does not pass for that of plain training.
    config = client.download_artifacts(ran.json["mlflow_run_id"], "config.toml", ".")
    again = run_file("experiments/retrain.py", config, "--names", "words.txt", "--device", "cpu")
    assert again.code == 0 and "is the config of a model distilled from e.safetensors" in again.err
    # The registered model is usable without the ensemble.
    names = run_file("experiments/generate.py", "models:/makemore-mlp@champion", "--n", "3")
    assert names.code == 0, names


def test_same_command_gives_same_model(distil: Distil) -> None:
    flags = ("--seeds", 1, "--no-register", "--json")
    first, again = distil(*flags), distil(*flags, "--workers", 1)

    assert first.json["seeds"] == again.json["seeds"]
    other = distil("--seeds", 1, "--weight", 0.6, "--no-register", "--json")
    assert other.json["seeds"] != first.json["seeds"]


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--weight", "0"], "--weight must be greater than 0 and at most 1, but got 0.0."),
        (["--weight", "1.5"], "--weight must be greater than 0 and at most 1, but got 1.5."),
        (["--seeds", "0"], "--seeds must be at least 1, but got 0."),
    ],
)
def test_bad_flag_is_refused(distil: Distil, flags: list[str], sentence: str) -> None:
    assert distil(*flags).refusal == sentence


def test_unsuitable_teacher_is_refused(distil: Distil) -> None:
    def refusal(**metadata: Any) -> str:
        save_checkpoint("t.safetensors", true_model(), VOCAB, **metadata)
        return distil(ensemble="t.safetensors").refusal

    assert distil(ensemble="none.safetensors").refusal.startswith("none.safetensors: no such file")
    assert distil(ensemble="words.txt").refusal.startswith("words.txt: is cut short or not a safe")
    other = refusal(corpus={"source": "other.txt", "sha256": "ab" * 32})
    assert other.startswith("t.safetensors: was trained on the words of other.txt (sha256 abababab")
    assert "trained on the dev words too" in refusal(trained_on="train+dev")
    save_checkpoint("t.safetensors", MLP(STUDENT, 4), Vocab("xyz"))
    assert distil(ensemble="t.safetensors").refusal == (
        "t.safetensors: knows the characters 'xyz', but words.txt has 'abcdefgh'; "
        "give its file with --names."
    )
