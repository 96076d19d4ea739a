"""The sentences and the commands that a retraining prints."""

from __future__ import annotations

import io
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from experiments.registry import Registered
from experiments.retraining.results import Outcome, Retraining, SeedResult
from experiments.retraining.terminal import show_next, show_outcome
from makemore.config import Config
from makemore.data import Corpus
from makemore.trainer import train

LOSSES = {"train_loss": 2.5, "dev_loss": 2.25, "test_loss": 2.75}
ORIGIN = {"study": "s", "trial": 4, "data_sha256": "abc", "best_step": 10, "dev_loss": 2.0}
DATASET = {"name": "names.txt", "sha256": "abc", "source": "names.txt"}


def make_outcome(corpus: Corpus, *, on: str = "train", seeds: int = 2) -> Outcome:
    config = Config(max_steps=20, eval_interval=10, n_hidden=8)
    result = train(config, corpus, device="cpu")
    losses = {name: loss for name, loss in LOSSES.items() if on == "train" or name != "dev_loss"}
    results = [SeedResult(result, losses, np.zeros(1)) for _ in range(seeds)]
    retraining = Retraining("mine", config, ORIGIN, DATASET, results, on)
    return Outcome(retraining, [], None, None, Path("m.safetensors"), True, ["ann", "bo"], 0.0)


@pytest.fixture
def console() -> Console:
    return Console(file=io.StringIO(), width=200)


def printed(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_table_and_sentences_name_every_loss(console: Console, small_corpus: Corpus) -> None:
    show_outcome(console, make_outcome(small_corpus))

    text = printed(console)
    assert text.startswith("mine: ") and "20 steps; losses at the best evaluation" in text
    (row,) = (line for line in text.splitlines() if "mean ± sd" in line)
    means = " ".join(f"{loss:.4f} ± 0.0000" for loss in LOSSES.values())
    assert " ".join(row.split()).endswith(f"mean ± sd {means}")
    assert "from trial 4 of study s: results are bit for bit equal only" in text
    assert "2 sampled words: ann, bo" in text
    assert "Saved as m.safetensors, the seed with the median dev loss" in text


def test_mean_without_the_seed_that_chose_the_config(
    console: Console, small_corpus: Corpus
) -> None:
    outcome = make_outcome(small_corpus, seeds=4)
    seeds = outcome.retraining.seeds
    for index, loss in enumerate((2.0, 2.2, 2.3, 2.4)):
        seeds[index] = replace(seeds[index], losses=LOSSES | {"dev_loss": loss})
    show_outcome(console, outcome)

    # The 97.5% quantile of Student's t with 2 degrees of freedom is 4.3027.
    margin = 4.3027 * 0.1 / 3**0.5
    assert f"The other 3 have mean dev loss 2.3000 ± {margin:.4f} (95%)." in printed(console)


def test_two_seeds_give_no_interval(console: Console, small_corpus: Corpus) -> None:
    show_outcome(console, make_outcome(small_corpus, seeds=2))

    assert "is partly luck. The other seed has dev loss 2.2500." in printed(console)


def test_one_seed_has_no_others(console: Console, small_corpus: Corpus) -> None:
    show_outcome(console, make_outcome(small_corpus, seeds=1))

    assert "partly luck" not in printed(console)


def test_train_and_dev_shows_no_dev_loss(console: Console, small_corpus: Corpus) -> None:
    show_outcome(console, make_outcome(small_corpus, on="train+dev", seeds=1))

    text = printed(console)
    assert "no dev loss can be measured, and the last step's weights are kept." in text
    assert "On train alone the best step was 10; --steps stops earlier." in text
    assert text.rstrip().endswith("Saved as m.safetensors; it replaces the file that was there")


def test_commands_repeat_names_and_mask_passwords(console: Console, small_corpus: Corpus) -> None:
    registered = Registered("3", "challenger", "its dev loss is not lower")
    uri = "http://me:secret@127.0.0.1:9"

    show_next(console, make_outcome(small_corpus), registered, Path("my words.txt"), uri)

    lines = printed(console).splitlines()
    assert lines[0] == (
        "Registered as version 3 of makemore-mlp, challenger: its dev loss is not lower."
    )
    generate, ui, serve = (shlex.split(line, comments=True) for line in lines[-3:])
    assert generate[2:] == ["m.safetensors", "--n", "20", "--names", "my words.txt"]
    assert ui[2:] == ["retrain", "--tracking-uri", "http://me:***@127.0.0.1:9"]
    assert "MLFLOW_TRACKING_URI=http://me:***@127.0.0.1:9" in serve
    assert "models:/makemore-mlp@challenger" in serve
    assert "secret" not in printed(console)


def test_commands_without_flags_are_short(console: Console, small_corpus: Corpus) -> None:
    show_next(console, make_outcome(small_corpus), None, None, None)

    generate, ui = (shlex.split(line, comments=True) for line in printed(console).splitlines()[-2:])
    assert generate[2:] == ["m.safetensors", "--n", "20"]
    assert ui[2:] == ["retrain"]
    assert "Registered" not in printed(console)
