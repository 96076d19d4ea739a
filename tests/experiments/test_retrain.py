"""retrain.py: reproduction of the exported trial, seeds, splits, and refused input."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from experiments.retraining.results import LOSSES
from makemore.checkpoint import load_checkpoint
from makemore.config import read_config
from makemore.data import build_dataset, load_corpus
from makemore.model import MLP
from makemore.words import read_words, split_words
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment

RETRAIN = "experiments/retrain.py"
TINY = "[config]\nmax_steps = 20\neval_interval = 10\nn_hidden = 8\n"
Retrain = Callable[..., Any]


@torch.no_grad()
def whole_split_loss(model: MLP, words: list[str]) -> float:
    """The definition: the mean cross-entropy over every example of a split, in float64."""
    corpus = load_corpus("words.txt")
    X, Y = build_dataset(words, corpus.vocab, model.config.block_size)
    return float(torch.nn.functional.cross_entropy(model(X).double(), Y))


# ---- reproduction of the trial


def test_retraining_reproduces_the_trials_dev_loss(
    run_file: Any, exported: Path, retrain: Retrain
) -> None:
    assert "3 of 3 trials" in run_file("studies/compare.py", "small").out

    ran = retrain(exported, "--json")

    best = ranked(load_study("small", None).get_trials())[0]
    summary = best.user_attrs["summary"]
    (seed,) = ran.json["seeds"]
    assert (ran.code, ran.json["name"], ran.json["reproduced"]) == (0, "small", True)
    assert seed["dev_loss"] == dev_loss(best) == best.value
    assert (seed["seed"], seed["best_step"]) == (best.user_attrs["seed"], summary["best_step"])
    assert ran.json["n_params"] == summary["metrics"]["n_params"]
    assert f"exactly as trial {best.number} of study small." in ran.err
    # One seed has no spread.
    assert ran.json["sd"] == dict.fromkeys(LOSSES)
    assert ran.json["mean"] == {name: seed[name] for name in LOSSES}
    # The saved model has these losses by their definition. The last is of words not trained on.
    model = load_checkpoint(ran.json["checkpoint"]).model
    for name, words in zip(LOSSES, split_words(read_words("words.txt")), strict=True):
        assert seed[name] == pytest.approx(whole_split_loss(model, words), abs=2e-6)


def test_deviation_from_the_origin_is_reported(exported: Path, retrain: Retrain) -> None:
    best = ranked(load_study("small", None).get_trials())[0]
    loss = dev_loss(best) or 0.0
    text = exported.read_text()
    exported.write_text(text.replace(f"dev_loss = {loss!r}", f"dev_loss = {loss + 0.5!r}"))

    ran = retrain(exported, "--json")

    assert ran.json["reproduced"] is False
    trial = f"trial {best.number} of study small"
    assert f"-0.5 from {trial}: results are bit for bit equal only" in ran.err


def test_pruned_trial_is_compared_at_its_best_step(exported: Path, retrain: Retrain) -> None:
    best = ranked(load_study("small", None).get_trials())[0]
    early = best.intermediate_values[8]
    text = exported.read_text()
    text = text.replace(f"dev_loss = {best.value!r}", f"dev_loss = {early!r}")
    text = text.replace("best_step = 40", "best_step = 8")
    exported.write_text(text.replace(TrialState.COMPLETE.name, "PRUNED"))

    ran = retrain(exported)

    sentence = f"The first seed has dev loss {early:.4f} at step 8, exactly as trial {best.number}"
    assert sentence in ran.out


def test_other_steps_are_not_compared_with_the_trial(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--steps", 100, "--json", "--out", "x/longer.safetensors")

    config = load_checkpoint(ran.json["checkpoint"]).model.config
    assert ran.json["checkpoint"] == "x/longer.safetensors"
    assert (config.max_steps, config.eval_interval) == (100, 10)
    assert ran.json["reproduced"] is None
    assert "exactly" not in ran.err and "from trial" not in ran.err


def test_origin_without_loss_is_not_compared(exported: Path, retrain: Retrain) -> None:
    lines = exported.read_text().splitlines()
    exported.write_text("\n".join(line for line in lines if not line.startswith("dev_loss")) + "\n")

    ran = retrain(exported, "--json")

    assert ran.code == 0 and ran.json["reproduced"] is None


def test_config_without_origin_is_trained(retrain: Retrain) -> None:
    Path("mine.toml").write_text(TINY)

    ran = retrain("mine.toml", "--json")

    assert (ran.code, ran.json["name"], ran.json["reproduced"]) == (0, "mine", None)
    assert "Warning" not in ran.err


# ---- seeds


def test_seeds_together_equal_seeds_alone(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--seeds", 3, "--workers", 2, "--json")
    alone = retrain(exported, "--seeds", 3, "--workers", 1, "--json")

    rows = ran.json["seeds"]
    assert rows == alone.json["seeds"]
    assert len({row["seed"] for row in rows}) == 3
    assert rows[0]["seed"] == read_config(exported).seed
    for name in LOSSES:
        values = [row[name] for row in rows]
        mean = statistics.mean(values)
        sd = statistics.stdev(values)
        assert ran.json["mean"][name] == pytest.approx(mean, rel=1e-12)
        assert ran.json["sd"][name] == pytest.approx(sd, rel=1e-12)
        assert f"{mean:.4f} ± {sd:.4f}" in ran.err
    # The checkpoint is that of the median dev loss.
    assert ran.json["checkpoint"] == "mlruns/checkpoints/small.safetensors"
    model = load_checkpoint(ran.json["checkpoint"]).model
    median = sorted(rows, key=lambda row: row["dev_loss"])[1]
    assert model.config.seed == median["seed"]
    loss = whole_split_loss(model, split_words(read_words("words.txt")).dev)
    assert loss == pytest.approx(median["dev_loss"], abs=2e-6)
    words = next(line for line in ran.err.splitlines() if line.startswith("20 sampled words: "))
    assert len(words.removeprefix("20 sampled words: ").split(", ")) == 20


@pytest.mark.parametrize(("select", "rank"), [("median", 1), ("best", 0)])
def test_selected_seed_is_saved(exported: Path, retrain: Retrain, select: str, rank: int) -> None:
    ran = retrain(exported, "--seeds", 3, "--select", select, "--json")

    ordered = sorted(ran.json["seeds"], key=lambda row: row["dev_loss"])
    assert ran.json["selected_seed"] == ordered[rank]["seed"]
    saved = load_checkpoint(ran.json["checkpoint"]).model.config
    assert saved.seed == ordered[rank]["seed"]


def test_train_and_dev_keeps_the_last_step(exported: Path, retrain: Retrain) -> None:
    ran = retrain(exported, "--on", "train+dev", "--seeds", 3, "--json")

    assert (ran.code, ran.json["trained_on"]) == (0, "train+dev")
    assert [row["best_step"] for row in ran.json["seeds"]] == [40] * 3
    assert set(ran.json["mean"]) == {"train_loss", "test_loss"}
    assert "no dev loss can be measured" in ran.err and ran.json["reproduced"] is None
    split = split_words(read_words("words.txt"))
    loaded = load_checkpoint(ran.json["checkpoint"])
    median = sorted(ran.json["seeds"], key=lambda row: row["train_loss"])[1]
    assert ran.json["selected_seed"] == loaded.model.config.seed == median["seed"]
    both = whole_split_loss(loaded.model, split.train + split.dev)
    test = whole_split_loss(loaded.model, split.test)
    assert median["train_loss"] == pytest.approx(both, abs=2e-6)
    assert median["test_loss"] == pytest.approx(test, abs=2e-6)
    assert loaded.metadata["trained_on"] == "train+dev"
    # Training on train alone gives other weights, so the dev words were really trained on.
    alone = load_checkpoint(retrain(exported, "--seeds", 3, "--json").json["checkpoint"]).model
    assert whole_split_loss(alone, split.train + split.dev) != median["train_loss"]


def test_diverged_training_leaves_nothing(retrain: Retrain) -> None:
    Path("wild.toml").write_text("[config]\nmax_steps = 200\neval_interval = 50\nlr = 1e9\n")

    ran = retrain("wild.toml", "--seeds", 2)

    assert (ran.code, ran.out) == (1, "")
    assert "training diverged: " in ran.err.splitlines()[-1]
    assert not Path("mlruns/checkpoints").exists()
    client = connect(None)
    assert find_runs(client, get_experiment(client, "retrain")) == []


# ---- other words than the config's


@pytest.fixture
def fewer(exported: Path) -> Path:
    """The first 300 words of the study."""
    path = Path("fewer.txt")
    lines = Path("words.txt").read_text().splitlines()
    path.write_text("\n".join(lines[:300]) + "\n")
    return path


def difference(fewer: Path) -> str:
    study = load_corpus("words.txt").sha256[:12]
    given = load_corpus(fewer).sha256[:12]
    return (
        f"the config experiments/configs/small.toml was found on the words of words.txt "
        f"(sha256 {study}), not on fewer.txt (sha256 {given})"
    )


def test_other_words_are_refused(run_file: Any, exported: Path, fewer: Path) -> None:
    ran = run_file(RETRAIN, exported, "--names", fewer)

    assert ran.refusal == (
        f"{difference(fewer)}; give that file with --names, "
        "or give --allow-other-words to train on these words."
    )
    # Without --names the words are the embedded names.
    refusal = run_file(RETRAIN, exported).refusal
    assert "not on the embedded names (sha256 " in refusal
    assert not Path("mlruns/checkpoints").exists()


def test_other_words_can_be_allowed(run_file: Any, exported: Path, fewer: Path) -> None:
    ran = run_file(RETRAIN, exported, "--names", fewer, "--allow-other-words", "--json")

    assert ran.code == 0
    assert f"Warning: {difference(fewer)}; their losses cannot be compared." in ran.err
    assert ran.json["reproduced"] is None


def test_second_config_of_other_words_is_refused(exported: Path, retrain: Retrain) -> None:
    text = exported.read_text()
    Path("other.toml").write_text(text.replace('data_sha256 = "', 'data_sha256 = "0'))

    refusal = retrain(exported, "--against", "other.toml").refusal

    assert "the config other.toml was found on the words of words.txt (sha256 0" in refusal


def test_proposed_command_repeats_names(retrain: Retrain, run_file: Any) -> None:
    Path("mine.toml").write_text(TINY)

    ran = retrain("mine.toml")

    line = next(line for line in ran.out.splitlines() if "experiments/generate.py" in line)
    flags = line.split("generate.py ")[1].split("  #")[0].split()
    assert flags[-2:] == ["--names", "words.txt"]
    # The proposed command can tell which names are new.
    generated = run_file("experiments/generate.py", *flags)
    assert generated.code == 0 and "are new;" in generated.out


# ---- bad input


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["none.toml"], "none.toml: no such file; give the path of a TOML file with a [config]"),
        (["words.txt"], "words.txt: not valid TOML:"),
        (["typo.toml"], "typo.toml: n_hiden is not a field of Config; did you mean n_hidden."),
        (["value.toml"], "value.toml: lr must be greater than 0, but got -1."),
        (["origin.toml"], "origin.toml: origin must be a table, but is 3; remove that line."),
        (["ok.toml", "--against", "none.toml"], "none.toml: no such file; give the path of a TOML"),
        (["ok.toml", "--against", "typo.toml"], "typo.toml: n_hiden is not a field of Config;"),
        (["ok.toml", "--seeds", "0"], "--seeds must be at least 1, but got 0."),
        (["ok.toml", "--steps", "0"], "--steps must be at least 1, but got 0."),
        (["ok.toml", "--workers", "0"], "--workers must be at least 1, but got 0."),
        (["ok.toml", "--names", "none.txt"], "none.txt: no such file;"),
        (["ok.toml", "--device", "abacus"], "device 'abacus' is unknown; use auto, cpu, cuda,"),
        (["ok.toml", "--tracking-uri", "here"], "tracking URI 'here' has no scheme;"),
    ],
)
def test_bad_input_is_refused(
    workdir: Path, run_file: Any, flags: list[str], sentence: str
) -> None:
    Path("ok.toml").write_text("[config]\n")
    Path("typo.toml").write_text("[config]\nn_hiden = 100\n")
    Path("value.toml").write_text("[config]\nlr = -1\n")
    Path("origin.toml").write_text("origin = 3\n[config]\n")

    assert run_file(RETRAIN, *flags).refusal.startswith(sentence)


@pytest.mark.parametrize(
    ("out", "sentence"),
    [
        ("mlruns", "mlruns: is a directory; give --out the path of a file."),
        ("words.txt/x", "words.txt/x: cannot be written ("),
        ("/dev/null", "/dev/null: is not a regular file; give --out another path."),
        ("pipe", "pipe: is not a regular file; give --out another path."),
    ],
)
def test_bad_output_is_refused_before_training(retrain: Retrain, out: str, sentence: str) -> None:
    os.mkfifo("pipe")
    Path("mine.toml").write_text(TINY)

    # A refusal has one line on stderr, so no seed was trained.
    assert retrain("mine.toml", "--out", out).refusal.startswith(sentence)
