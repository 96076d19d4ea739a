"""generate.py: which names it prints, and which of them it marks."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from makemore.checkpoint import save_checkpoint
from makemore.config import Config
from makemore.model import MLP
from makemore.sampling import sample_words, score_words
from makemore.words import NAMES, Vocab
from tests.conftest import Ran

SCRIPT = "experiments/generate.py"
VOCAB = Vocab("abcdefghijklmnopqrstuvwxyz")
CHECKPOINT = Path("model.safetensors")
EMBEDDED = hashlib.sha256(NAMES.read_bytes()).hexdigest()
Run = Callable[..., Ran]


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> MLP:
    """The model in CHECKPOINT, whose words are short and varied; it records no data."""
    monkeypatch.chdir(tmp_path)
    config = Config(block_size=2, n_embd=3, n_hidden=8, init="kaiming", seed=1)
    model = MLP(config, len(VOCAB))
    with torch.no_grad():
        model.W2.mul_(100)
        model.b2[0] = 2.0  # the end
    save_checkpoint(CHECKPOINT, model, VOCAB)
    return model


def write_names(words: list[str]) -> Path:
    path = Path("names.txt")
    path.write_text("\n".join(words) + "\n", encoding="utf-8")
    return path


def save_with_data(model: MLP, path: Path, **metadata: Any) -> str:
    """Save the model with the digest of its data, which is returned."""
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    corpus = {"source": str(path), "sha256": sha256}
    save_checkpoint(CHECKPOINT, model, VOCAB, corpus=corpus, **metadata)
    return sha256


def test_names_are_scored_and_known_ones_marked(run_file: Run, model: MLP) -> None:
    drawn = sample_words(model, VOCAB, 12, seed=5, temperature=0.8, prefix="al")
    known = (drawn[2], drawn[7])
    data = write_names([*known, "never"])
    save_with_data(model, data)
    flags = ("--prefix", "al", "--n", 12, "--temperature", 0.8, "--seed", 5, "--names", data)

    ran = run_file(SCRIPT, CHECKPOINT, *flags, "--json")
    shown = run_file(SCRIPT, CHECKPOINT, *flags).out

    assert (ran.code, "Using" in ran.err) == (0, False)
    rows = ran.json["names"]
    assert [row["name"] for row in rows] == drawn
    assert [row["in_data"] for row in rows] == [word in known for word in drawn]
    scores = score_words(model, VOCAB, drawn).tolist()
    assert [row["nats_per_char"] for row in rows] == scores

    line = next(line for line in shown.splitlines() if line.split()[:1] == [drawn[2]])
    assert line.split()[1:] == [f"{scores[2]:.3f}", "in", "the", "data"]
    n_known = sum(word in known for word in drawn)
    assert sum(line.rstrip().endswith("in the data") for line in shown.splitlines()) == n_known
    assert f"{12 - n_known} are new; {n_known} are in the data." in shown


def test_new_only_skips_known_and_repeated_names(run_file: Run, model: MLP) -> None:
    drawn = sample_words(model, VOCAB, 500, seed=5, temperature=0.7)
    known = drawn[:10]
    assert len(set(drawn[:60])) < 60  # there are repeats to skip
    data = write_names([*filter(None, known), "other"])
    flags = ("--n", 30, "--temperature", 0.7, "--seed", 5, "--names", data)

    ran = run_file(SCRIPT, CHECKPOINT, *flags, "--new-only", "--json")

    expected = [word for word in dict.fromkeys(drawn) if word and word not in known][:30]
    assert ran.code == 0
    assert [row["name"] for row in ran.json["names"]] == expected
    assert not any(row["in_data"] for row in ran.json["names"])


def test_new_only_stops_if_nothing_is_new(run_file: Run, model: MLP) -> None:
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


def test_model_of_other_words_gets_no_marks(run_file: Run, model: MLP) -> None:
    data = write_names(sample_words(model, VOCAB, 5, seed=1))
    sha256 = save_with_data(model, data)

    ran = run_file(SCRIPT, CHECKPOINT, "--json")

    assert ran.code == 0
    assert {row["in_data"] for row in ran.json["names"]} == {None}
    assert ran.err.splitlines()[-1] == (
        f"Which names are new is not known: the model was trained on names.txt (sha256 "
        f"{sha256[:12]}), not on the embedded names (sha256 {EMBEDDED[:12]}); "
        "give that file with --names."
    )
    assert "are new;" not in ran.err and "in the data" not in ran.err
    # With the words of the model the marks are there.
    ran = run_file(SCRIPT, CHECKPOINT, "--names", data)
    assert "are new;" in ran.out and "in the data" in ran.out and ran.err == ""


def test_new_only_is_refused_on_other_words(run_file: Run, model: MLP) -> None:
    save_with_data(model, write_names(["emma", "ava"]))
    Path("other.txt").write_text("ida\n")

    for flags, given in (((), "the embedded names"), (("--names", "other.txt"), "other.txt")):
        refusal = run_file(SCRIPT, CHECKPOINT, "--new-only", *flags).refusal
        assert refusal.startswith("--new-only cannot tell which names are new: ")
        assert f"not on {given} (sha256 " in refusal and "--names." in refusal


def test_unrecorded_data_needs_names(run_file: Run, model: MLP) -> None:
    ran = run_file(SCRIPT, CHECKPOINT)
    assert ran.code == 0 and "are new;" not in ran.out
    assert "the checkpoint does not record its words; give their file with --names." in ran.err

    ran = run_file(SCRIPT, CHECKPOINT, "--names", write_names(["emma"]))
    assert "are new;" in ran.out and ran.err == ""


def test_digest_of_the_origin_is_used_too(run_file: Run, model: MLP) -> None:
    origin = {"data": "names.txt", "data_sha256": EMBEDDED}
    save_checkpoint(CHECKPOINT, model, VOCAB, origin=origin)

    ran = run_file(SCRIPT, CHECKPOINT)

    assert "are new;" in ran.out and ran.err == ""


def test_chosen_model_is_named_on_stderr(run_file: Run, model: MLP) -> None:
    path = save_checkpoint("mlruns/checkpoints/mine.safetensors", model, VOCAB)

    ran = run_file(SCRIPT, "--n", 5)

    assert ran.code == 0
    assert ran.err.startswith(f"Using {path}: it is the newest checkpoint, ")
    assert str(path) in ran.out.splitlines()[0]
    assert all(word in ran.out for word in sample_words(model, VOCAB, 5, seed=1))


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
def test_bad_input_is_refused(
    run_file: Run, model: MLP, flags: tuple[object], sentence: str
) -> None:
    assert sentence in run_file(SCRIPT, CHECKPOINT, *flags).refusal
