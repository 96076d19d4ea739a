"""Ensembles: the mean of the members' probabilities, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from makemore.checkpoint import save_checkpoint
from makemore.config import Config
from makemore.data import Examples
from makemore.ensemble import Ensemble, load, load_trained, predict, save
from makemore.errors import UserError
from makemore.kneser_ney import KneserNey
from makemore.model import MLP
from makemore.sampling import sample_words, score_words
from makemore.words import Vocab

WORDS = ["anna", "anne", "hannah", "nana", "eve", "neva"]
VOCAB = Vocab.of(WORDS)
SIZES = (2, 7)  # block sizes of the members


@pytest.fixture
def ensemble() -> Ensemble:
    models = tuple(
        MLP(Config(block_size=T, n_embd=3, n_hidden=5, init="lecture", seed=T), len(VOCAB))
        for T in SIZES
    )
    counts = KneserNey.fit(Examples.of(WORDS, VOCAB), len(VOCAB), context=3)
    return Ensemble(models, (0.25, 0.75), VOCAB, counts, 0.4, {"losses": {"dev_loss": 1.5}})


@pytest.fixture
def path(tmp_path: Path, ensemble: Ensemble) -> Path:
    return save(tmp_path / "e.safetensors", ensemble)


def contexts(ensemble: Ensemble) -> np.ndarray:
    return Examples.of(WORDS, VOCAB).contexts(ensemble.block_size)


def test_probabilities_are_the_weighted_mean(ensemble: Ensemble) -> None:
    X = contexts(ensemble)
    first, second = (
        predict(model, torch.from_numpy(X[:, -T:].astype(np.int64)))
        for model, T in zip(ensemble.models, SIZES, strict=True)
    )
    assert ensemble.counts is not None
    counted = ensemble.counts.probabilities(X[:, -3:])

    found = ensemble.probabilities(X)

    expected = 0.6 * (0.25 * first + 0.75 * second) + 0.4 * counted
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    np.testing.assert_allclose(found.sum(1), 1, rtol=1e-6)
    assert ensemble.block_size == max(SIZES)


def test_one_member_predicts_as_the_model(ensemble: Ensemble) -> None:
    model = ensemble.models[0]
    alone = Ensemble((model,), (1.0,), VOCAB, None, 0.0, {})

    assert sample_words(alone, VOCAB, 50, seed=3) == sample_words(model, VOCAB, 50, seed=3)
    np.testing.assert_allclose(
        score_words(alone, VOCAB, WORDS), score_words(model, VOCAB, WORDS), rtol=1e-6
    )


def test_file_is_loaded_as_saved(path: Path, ensemble: Ensemble) -> None:
    loaded = load(path)

    X = contexts(ensemble)
    np.testing.assert_array_equal(loaded.probabilities(X), ensemble.probabilities(X))
    assert loaded.weights == ensemble.weights and loaded.vocab == VOCAB
    assert loaded.metadata == ensemble.metadata
    assert loaded.models[1].config == ensemble.models[1].config


def test_large_vocabulary_is_loaded_as_saved(tmp_path: Path) -> None:
    words = [chr(0x4E00 + i) + chr(0x4E00 + i // 2) for i in range(300)]
    vocab = Vocab.of(words)
    counts = KneserNey.fit(Examples.of(words, vocab), len(vocab), context=2)
    model = MLP(Config(block_size=2, n_embd=2, n_hidden=2), len(vocab))
    ensemble = Ensemble((model,), (1.0,), vocab, counts, 0.5, {})

    loaded = load(save(tmp_path / "e.safetensors", ensemble))

    X = Examples.of(words, vocab).contexts(2)
    np.testing.assert_array_equal(loaded.probabilities(X), ensemble.probabilities(X))


def test_sampled_words_begin_with_the_prefix(path: Path) -> None:
    trained = load_trained(path)

    words = sample_words(trained.model, trained.vocab, 20, seed=1, prefix="ann")

    assert all(word.startswith("ann") for word in words)


def test_every_kind_of_file_is_loaded(path: Path, ensemble: Ensemble, tmp_path: Path) -> None:
    checkpoint = save_checkpoint(tmp_path / "m.safetensors", ensemble.models[0], VOCAB, note="x")

    assert isinstance(load_trained(path).model, Ensemble)
    assert load_trained(path).metadata == ensemble.metadata
    assert isinstance(load_trained(checkpoint).model, MLP)
    assert load_trained(checkpoint).metadata == {"note": "x"}


def test_checkpoint_is_refused(ensemble: Ensemble, tmp_path: Path) -> None:
    path = save_checkpoint(tmp_path / "m.safetensors", ensemble.models[0], VOCAB)

    with pytest.raises(UserError, match=r"m\.safetensors: is not an ensemble of this project"):
        load(path)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_truncated_file_is_refused(path: Path, kept: int) -> None:
    raw = path.read_bytes()
    path.write_bytes(raw[:kept])

    for read in (load, load_trained):
        with pytest.raises(UserError, match="is cut short or not a safetensors file"):
            read(path)


@pytest.mark.parametrize("place", ["a weight", "the metadata"])
def test_changed_file_is_refused(path: Path, place: str) -> None:
    raw = bytearray(path.read_bytes())
    at = len(raw) - 2 if place == "a weight" else raw.index(b"1.5")
    raw[at] ^= 1
    path.write_bytes(raw)

    with pytest.raises(UserError, match="does not match its own digest"):
        load(path)


def test_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.json"
    path.write_text(json.dumps(WORDS))

    with pytest.raises(UserError, match="not a safetensors file"):
        load(path)
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "missing")
