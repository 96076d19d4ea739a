"""What retrained models are held against: counting baselines, a second config, and who may read the test split."""

from __future__ import annotations

import ast
import collections
import math
import statistics
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from experiments.measures import baselines, compare
from makemore.config import read_config
from makemore.data import Corpus, load_corpus
from makemore.words import read_words, split_words
from studies.harness.tracking.client import connect, find_runs
from tests.conftest import ROOT

FILE = Path("experiments/configs/small.toml")
Retrain = Callable[..., Any]


def test_baselines_stand_beside_the_losses(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    ran, corpus = retrain(FILE, "--json"), load_corpus("words.txt")
    split, rungs = split_words(read_words("words.txt")), ran.json["baselines"]
    assert list(rungs) == ["uniform", "bigram", "trigram", "4-gram", "interpolated"]
    for loss in rungs["uniform"].values():
        assert loss == pytest.approx(math.log(len(corpus.vocab)))
    # By the definition: every count and a tenth, over train.
    counts = collections.Counter(pair for word in split.train for pair in pairwise(f".{word}."))
    of = collections.Counter(first for word in split.train for first in f".{word}")
    for name, words in {"dev_loss": split.dev, "test_loss": split.test}.items():
        pairs = [pair for word in words for pair in pairwise(f".{word}.")]
        nats = [
            -math.log((counts[pair] + 0.1) / (of[pair[0]] + 0.1 * len(corpus.vocab)))
            for pair in pairs
        ]
        assert rungs["bigram"][name] == pytest.approx(statistics.fmean(nats))
        assert f"{rungs['bigram'][name]:.4f}" in next(
            line for line in ran.err.splitlines() if " bigram " in line
        )


def test_the_lectures_own_loss_stands_beside_its_names_only(
    corpus: Corpus, small_corpus: Corpus
) -> None:
    test = split_words(read_words()).test[:20]
    assert baselines(corpus, "train", test)[-1] == (
        "the lecture's",
        {"train_loss": 2.126, "dev_loss": 2.17},
    )
    # Trained on train and dev, neither of its losses is one of these.
    assert baselines(corpus, "train+dev", test)[-1].name == "interpolated"
    assert baselines(small_corpus, "train", ["emma", "ava"])[-1].name == "interpolated"


def test_a_second_config_is_compared_in_a_plain_sentence(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    worse = read_config(FILE).replace(lr=1e-6, seed=5)
    Path("worse.toml").write_text(worse.to_toml())
    ran = retrain(FILE, "--against", "worse.toml", "--seeds", 2, "--json")
    found = ran.json["comparison"]
    sentence = (
        f"small is better than worse by {-found['difference']:.4f} ± {found['margin']:.4f} nats"
    )
    assert found["sentence"] == sentence and found["difference"] < -found["margin"] < 0
    assert f"{sentence}, in test loss; 95% interval over words and seeds." in ran.err
    # The other way round it is the same difference.
    back = retrain("worse.toml", "--against", FILE, "--seeds", 2, "--json").json
    assert (
        back["comparison"]["difference"] == -found["difference"]
        and back["comparison"]["sentence"] == sentence
    )
    assert ran.json["mean"]["test_loss"] - back["mean"]["test_loss"] == pytest.approx(
        found["difference"], abs=1e-6
    )
    # MLflow has the seeds of both below one parent.
    client = connect(None)
    parent = client.get_run(ran.json["mlflow_run_id"])
    children = find_runs(
        client, parent.info.experiment_id, **{"mlflow.parentRunId": parent.info.run_id}
    )
    assert sorted(run.data.tags["config"] for run in children) == [
        "small",
        "small",
        "worse",
        "worse",
    ]
    assert (
        parent.data.tags["comparison"] == sentence
        and parent.data.metrics["difference"] == found["difference"]
    )


def test_a_config_cannot_be_told_from_itself(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    ran = retrain(FILE, "--against", FILE)
    sentence = f"{FILE} and {FILE} cannot be told apart (difference 0.0000 ± 0.0000 nats), in test loss; 95% interval"
    assert f"{sentence} over words." in ran.out and "give --seeds 5" in ran.out


def test_the_difference_of_one_seed_each_is_the_ratio_estimate() -> None:
    lengths = np.array([2, 4, 6])
    first, second = np.array([[3.0, 8.0, 13.0]]), np.array([[4.0, 8.0, 18.0]])
    found = compare(("a", "b"), first, second, lengths)
    # By hand: D = -6 / 12; the residuals -1 + 1, 0 + 2, -5 + 3; variance 3 / 2 * 8 / 144; t of 2 degrees is 4.3027.
    assert found.loss == -0.5
    assert found.margin == pytest.approx(4.302653 * math.sqrt(1 / 12), rel=1e-6)
    assert not found.differs and not found.seeded
    assert found.sentence == "a and b cannot be told apart (difference 0.5000 ± 1.2421 nats)"


def test_the_interval_holds_the_true_difference_in_about_95_of_100_repetitions() -> None:
    rng, true, held = np.random.default_rng(0), -0.03, 0
    for _ in range(400):
        lengths = rng.integers(3, 12, 300)
        common = rng.normal(2, 0.5, 300)  # some words are hard for both

        def side(
            mean: float, lengths: np.ndarray = lengths, common: np.ndarray = common
        ) -> np.ndarray:
            own, seeds = rng.normal(0, 0.2, 300), rng.normal(0, 0.01, (5, 1))
            return lengths * (common + own + mean + seeds + rng.normal(0, 0.05, (5, 300)))

        found = compare(("a", "b"), side(true), side(0.0), lengths)
        held += abs(found.loss - true) <= found.margin
    # Three standard deviations of a share of 0.95.
    assert 400 * 0.95 - 14 <= held <= 400 * 0.95 + 14


def test_nothing_else_reads_the_test_split() -> None:
    root, readers = ROOT, []
    for path in (
        path
        for name in ("makemore", "studies", "experiments")
        for path in (root / name).rglob("*.py")
    ):
        nodes = ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        readers += [
            path.name for node in nodes if isinstance(node, ast.Attribute) and node.attr == "test"
        ]
    assert readers == ["retrain.py"]
