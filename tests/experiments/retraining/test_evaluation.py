"""Baselines of a retraining, and which code may read the test split."""

from __future__ import annotations

import ast
import collections
import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from experiments.retraining.evaluation import baselines, join_dev
from makemore.counts import list_words
from makemore.data import Corpus, load_corpus
from makemore.words import read_words, split_words
from tests.conftest import ROOT

Retrain = Callable[..., Any]


def test_baselines_are_listed_with_the_losses(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--json")

    corpus = load_corpus("words.txt")
    split = split_words(read_words("words.txt"))
    found = ran.json["baselines"]
    assert list(found) == ["uniform", "bigram", "trigram", "4-gram", "interpolated", "kneser-ney"]
    for loss in found["uniform"].values():
        assert loss == pytest.approx(math.log(len(corpus.vocab)))
    # The definition of the bigram model: every count over train, plus a tenth.
    counts = collections.Counter(pair for word in split.train for pair in pairwise(f".{word}."))
    of = collections.Counter(first for word in split.train for first in f".{word}")
    for name, words in {"dev_loss": split.dev, "test_loss": split.test}.items():
        pairs = [pair for word in words for pair in pairwise(f".{word}.")]
        nats = [
            -math.log((counts[pair] + 0.1) / (of[pair[0]] + 0.1 * len(corpus.vocab)))
            for pair in pairs
        ]
        assert found["bigram"][name] == pytest.approx(statistics.fmean(nats))
        row = next(line for line in ran.err.splitlines() if " bigram " in line)
        assert f"{found['bigram'][name]:.4f}" in row


def test_lectures_model_is_a_baseline_for_its_names_only(
    corpus: Corpus, small_corpus: Corpus
) -> None:
    test = split_words(read_words()).test[:20]
    name, losses = baselines(corpus, "train", test)[-1]
    assert name == "the lecture's model, on its own file"
    assert losses == {"train_loss": 2.126, "dev_loss": 2.17}
    # After training on train and dev, its losses are not comparable.
    assert baselines(corpus, "train+dev", test)[-1].name == "kneser-ney"
    assert baselines(small_corpus, "train", ["emma", "ava"])[-1].name == "kneser-ney"


def test_joined_train_holds_dev_and_no_test_words(small_corpus: Corpus, words: list[str]) -> None:
    joined = join_dev(small_corpus)
    split = split_words(words)

    assert list_words(joined.train, joined.vocab) == split.train + split.dev
    assert list_words(joined.dev, joined.vocab) == split.dev


def test_only_two_scripts_read_the_test_split() -> None:
    readers = []
    for name in ("makemore", "studies", "experiments"):
        for path in (ROOT / name).rglob("*.py"):
            nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
            attributes = [node.attr for node in nodes if isinstance(node, ast.Attribute)]
            readers += [path.name] * attributes.count("test")

    assert sorted(readers) == ["ensemble.py", "retrain.py"]
