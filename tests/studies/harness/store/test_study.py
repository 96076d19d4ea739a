"""Opening studies: creation, resumption, and settings that differ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.pruners import NopPruner
from optuna.trial import TrialState

from makemore.config import Config
from makemore.data import Corpus
from makemore.errors import UserError
from studies.harness.store.study import format_range, free_name, load_study, open_study

LR = distribution_to_json(FloatDistribution(1e-3, 1.0, log=True))
WIDER_LR = distribution_to_json(FloatDistribution(1e-4, 1.0, log=True))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current directory."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def opened(corpus: Corpus, name: str = "mlp", **changes: Any) -> optuna.Study:
    settings: dict[str, Any] = {
        "space": {"lr": LR},
        "base": Config(),
        "corpus": corpus,
        "seed": None,
        "pruner": NopPruner(),
        "launched_with": {"script": "studies/mlp.py"},
        "first": {"lr": 0.1},
    }
    storage = changes.pop("storage", None)
    return open_study(name, storage, **{**settings, **changes})


def test_new_study_stores_its_settings_and_first_trial(small_corpus: Corpus) -> None:
    opened(small_corpus, seed=5)

    study = load_study("mlp", None)
    assert study.user_attrs["seed"] == 5
    assert study.user_attrs["space"] == {"lr": LR}
    assert study.user_attrs["data_sha256"] == small_corpus.sha256
    assert study.user_attrs["script"] == "studies/mlp.py"
    assert [trial.state for trial in study.trials] == [TrialState.WAITING]


def test_resumed_study_is_left_as_it_was(small_corpus: Corpus) -> None:
    before = opened(small_corpus, seed=5)

    after = opened(small_corpus, seed=None, launched_with={"script": "another.py"})

    assert after.user_attrs == before.user_attrs
    # The first parameters are enqueued once.
    assert len(after.trials) == 1


@pytest.mark.parametrize(
    ("changes", "difference"),
    [
        ({"base": Config(max_steps=50)}, "max_steps was 200000 and now is 50"),
        ({"seed": 7}, "seed was 0 and now is 7"),
        (
            {"space": {"lr": WIDER_LR}},
            r"the range of lr was 0.001 to 1.0 \(log\) and now is 0.0001 to 1.0 \(log\)",
        ),
        ({"space": {}}, r"the range of lr was 0.001 to 1.0 \(log\) and now is absent"),
    ],
)
def test_other_settings_are_refused_by_name(
    small_corpus: Corpus, changes: Any, difference: str
) -> None:
    opened(small_corpus)

    with pytest.raises(UserError, match=f"study 'mlp' was begun with other settings: {difference}"):
        opened(small_corpus, **changes)


def test_other_words_are_refused(small_corpus: Corpus, corpus: Corpus) -> None:
    opened(small_corpus)

    with pytest.raises(UserError, match="the file of words has changed. Use the old settings"):
        opened(corpus)


def test_unknown_study_is_refused_with_the_known_ones(small_corpus: Corpus) -> None:
    opened(small_corpus, "deep")
    journal = "mlruns/optuna/deep.journal"

    with pytest.raises(UserError, match="no study 'mlp' in this storage; it holds deep."):
        load_study("mlp", journal)


@pytest.mark.parametrize("storage", [None, "all.journal", "sqlite:///all.db"])
def test_free_name_is_that_of_no_study(small_corpus: Corpus, storage: str | None) -> None:
    study = opened(small_corpus, storage=storage)
    assert free_name("mlp-wide", study, storage) == "mlp-wide"

    opened(small_corpus, "mlp-wide", storage=storage)
    assert free_name("mlp-wide", study, storage) == "mlp-wide-2"

    opened(small_corpus, "mlp-wide-2", storage=storage)
    assert free_name("mlp-wide", study, storage) == "mlp-wide-3"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (LR, "0.001 to 1.0 (log)"),
        (distribution_to_json(IntDistribution(2, 8)), "2 to 8"),
        (distribution_to_json(CategoricalDistribution([32, 64])), "one of 32/64"),
        (None, "absent"),
        (0.5, "0.5"),
        ("adamw", "adamw"),
    ],
)
def test_ranges_are_shown_as_text(value: Any, text: str) -> None:
    assert format_range(value) == text
