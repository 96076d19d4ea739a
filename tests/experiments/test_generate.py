"""The script that prints new names, as a user runs it."""

from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from experiments.registry import save_served
from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.model import MLP
from makemore.sampling import sample_words, score_words
from makemore.words import Vocab
from studies.harness.tracking.client import connect
from tests.conftest import Ran

SCRIPT = "experiments/generate.py"
VOCAB = Vocab("abcdefghijklmnopqrstuvwxyz")
CHECKPOINT = Path("model.safetensors")
Run = Callable[..., Ran]


def make_model(seed: int = 1) -> MLP:
    """A model whose words are short and unlike."""
    model = MLP(Config(block_size=2, n_embd=3, n_hidden=8, init="kaiming", seed=seed), len(VOCAB))
    with torch.no_grad():
        model.W2.mul_(100)
        model.b2[0] = 2.0  # the end
    return model


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MLP:
    """The model of CHECKPOINT in the current directory, which holds nothing else."""
    monkeypatch.chdir(tmp_path)
    model = make_model()
    save_checkpoint(CHECKPOINT, model, VOCAB)
    return model


def write_names(words: list[str]) -> Path:
    path = Path("names.txt")
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


def test_names_come_with_their_nats_and_those_in_the_data_are_marked(
    run_file: Run, model: MLP
) -> None:
    drawn = sample_words(model, VOCAB, 12, seed=5, temperature=0.8, prefix="al")
    data = write_names([drawn[2], drawn[7], "never"])

    flags = ("--prefix", "al", "--n", 12, "--temperature", 0.8, "--seed", 5, "--names", data)
    ran = run_file(SCRIPT, CHECKPOINT, *flags, "--json")

    assert ran.code == 0
    assert [row["name"] for row in ran.json["names"]] == drawn
    assert [row["in_data"] for row in ran.json["names"]] == [
        word in (drawn[2], drawn[7]) for word in drawn
    ]
    assert [row["nats_per_char"] for row in ran.json["names"]] == score_words(
        model, VOCAB, drawn
    ).tolist()
    shown = run_file(SCRIPT, CHECKPOINT, *flags).out
    line = next(line for line in shown.splitlines() if line.split()[:1] == [drawn[2]])
    assert line.split()[1:] == [
        f"{score_words(model, VOCAB, drawn[2:3])[0]:.3f}",
        "in",
        "the",
        "data",
    ]
    known = sum(word in (drawn[2], drawn[7]) for word in drawn)
    assert sum(line.rstrip().endswith("in the data") for line in shown.splitlines()) == known
    assert f"{12 - known} are new; {known} stand in the data." in shown


def test_new_only_draws_on_past_what_is_known_and_what_was_drawn_before(
    run_file: Run, model: MLP
) -> None:
    drawn = sample_words(model, VOCAB, 500, seed=5, temperature=0.7)
    known = drawn[:10]
    assert len(set(drawn[:60])) < 60  # there are repeats to leave out

    flags = (
        "--n",
        30,
        "--temperature",
        0.7,
        "--seed",
        5,
        "--names",
        write_names([*filter(None, known), "other"]),
    )
    ran = run_file(SCRIPT, CHECKPOINT, *flags, "--new-only", "--json")

    expected = [word for word in dict.fromkeys(drawn) if word and word not in known][:30]
    assert ran.code == 0
    assert [row["name"] for row in ran.json["names"]] == expected
    assert not any(row["in_data"] for row in ran.json["names"])


def test_new_only_gives_up_with_a_sentence_where_there_is_nothing_new(
    run_file: Run, model: MLP
) -> None:
    with torch.no_grad():
        model.flat.zero_()
        model.b2[0] = 50.0  # every word ends at once
    save_checkpoint(CHECKPOINT, model, VOCAB)

    flags = (CHECKPOINT, "--prefix", "ab", "--new-only", "--n", 3)
    found = run_file(SCRIPT, *flags, "--names", write_names(["other"]), "--json")
    nothing = run_file(SCRIPT, *flags, "--names", write_names(["ab"]), "--json")

    assert [row["name"] for row in found.json["names"]] == ["ab"]
    assert nothing.json["names"] == []
    for ran, count in ((found, 1), (nothing, 0)):
        assert ran.code == 1
        assert f"10,000 draws gave {count} of 3 names that are new; lower --n" in ran.err


def test_without_a_path_the_newest_checkpoint_is_taken_and_named(run_file: Run, model: MLP) -> None:
    folder = Path("mlruns", "checkpoints")
    for age, name in enumerate(("b", "a", "c")):
        path = save_checkpoint(folder / f"{name}.safetensors", make_model(age), VOCAB)
        os.utime(path, (1000 - age, 1000 - age))

    ran = run_file(SCRIPT, "--n", 5)

    assert ran.code == 0
    assert str(folder / "b.safetensors") in ran.out.splitlines()[0]
    assert all(word in ran.out for word in sample_words(make_model(0), VOCAB, 5, seed=1))


def test_other_data_than_the_models_is_warned_of(run_file: Run, model: MLP) -> None:
    save_checkpoint(CHECKPOINT, model, VOCAB, corpus={"source": "fish.txt", "sha256": "0" * 64})

    ran = run_file(SCRIPT, CHECKPOINT)

    assert ran.code == 0
    assert "trained on fish.txt, and its names are looked up in names.txt" in ran.err


def test_a_registered_model_gives_the_names_of_its_checkpoint(run_file: Run, model: MLP) -> None:
    client = connect(None)
    save_served(Path("served"), CHECKPOINT)
    Path("bare").mkdir()
    Path("bare", "MLmodel").write_text("flavors: {}\n", encoding="utf-8")
    for name in ("served", "bare"):
        client.create_registered_model(name)
        version = client.create_model_version(name, Path(name).absolute().as_uri())
        client.set_registered_model_alias(name, "champion", version.version)

    words = [
        run_file(SCRIPT, uri, "--json").json
        for uri in ("models:/served@champion", "models:/served/1")
    ]

    assert [row["name"] for row in words[0]["names"]] == sample_words(model, VOCAB, 20, seed=1)
    assert (
        words[0]["names"]
        == words[1]["names"]
        == run_file(SCRIPT, CHECKPOINT, "--json").json["names"]
    )
    assert "holds 0 safetensors files" in run_file(SCRIPT, "models:/bare@champion").refusal
    for uri in ("models:/served@nobody", "models:/nothing@champion", "models:/served/7"):
        assert run_file(SCRIPT, uri).refusal.startswith(f"{uri}: cannot be loaded from MLflow (")
    assert (
        "give models:/NAME@ALIAS or models:/NAME/VERSION"
        in run_file(SCRIPT, "models:/served").refusal
    )


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (("--n", 0), "--n must be at least 1, but got 0."),
        (("--prefix", "aé"), "'aé' holds 'é', which is not one of the symbols"),
        (("--prefix", "a."), "holds '.', which ends a word"),
        (("--temperature", 0), "temperature must be greater than 0"),
        (("--temperature", "nan"), "temperature must be greater than 0"),
        (("--names", "nowhere.txt"), "nowhere.txt: no such file"),
    ],
)
def test_bad_input_is_refused_in_one_sentence(
    run_file: Run, model: MLP, flags: tuple[object], sentence: str
) -> None:
    assert sentence in run_file(SCRIPT, CHECKPOINT, *flags).refusal


def test_files_that_are_no_whole_checkpoint_are_refused_in_one_sentence(
    run_file: Run, model: MLP
) -> None:
    raw = CHECKPOINT.read_bytes()
    Path("short.safetensors").write_bytes(raw[:-7])
    Path("pickle.safetensors").write_bytes(pickle.dumps({"a": 1}))
    assert load_checkpoint(CHECKPOINT)  # the whole file is one

    for name in ("short.safetensors", "pickle.safetensors"):
        assert run_file(SCRIPT, name).refusal.startswith(
            f"{name}: is cut short or not a safetensors file"
        )
    assert run_file(SCRIPT, "gone.safetensors").refusal.startswith("gone.safetensors: no such file")
    assert "holds no checkpoint yet; train a model first" in run_file(SCRIPT).refusal
