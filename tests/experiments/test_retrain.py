"""From a study to its exported best trial, trained again: the same digits, more seeds, the test split."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import torch
from optuna.trial import TrialState

from experiments.measures import join_dev
from experiments.seeds import LOSSES, make_configs, train_all
from makemore.checkpoint import load_checkpoint
from makemore.config import Config, read_config
from makemore.counts import list_words
from makemore.data import Corpus, build_dataset, load_corpus
from makemore.engines import EngineFailed, Outcome
from makemore.engines.cpu.engine import CpuEngine
from makemore.model import MLP
from makemore.words import read_words, split_words
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.tracking.client import connect, find_runs, get_experiment
from studies.harness.tracking.runs import FinishedRun, log_run

RETRAIN = "experiments/retrain.py"
FILE = Path("experiments/configs/small.toml")
Retrain = Callable[..., Any]


@torch.no_grad()
def whole_split_loss(model: MLP, words: list[str]) -> float:
    """The definition: the mean cross-entropy over every example of a split, in float64."""
    corpus = load_corpus("words.txt")
    X, Y = build_dataset(words, corpus.vocab, model.config.block_size)
    return float(torch.nn.functional.cross_entropy(model(X).double(), Y))


# ---- the same digits


def test_from_study_to_export_to_retraining_the_dev_loss_is_the_same(
    run_file: Any, retrain: Retrain
) -> None:
    assert "3 of 3 trials" in run_file("studies/compare.py", "small").out
    assert run_file("experiments/export.py", "small").code == 0
    ran = retrain(FILE, "--json")
    best = ranked(load_study("small", None).get_trials())[0]
    (seed,) = ran.json["seeds"]
    assert (ran.code, ran.json["name"], ran.json["reproduced"]) == (0, "small", True)
    assert seed["dev_loss"] == dev_loss(best) == best.value
    assert (seed["seed"], seed["best_step"]) == (
        best.user_attrs["seed"],
        best.user_attrs["summary"]["best_step"],
    )
    assert ran.json["n_params"] == best.user_attrs["summary"]["metrics"]["n_params"]
    assert f"exactly as trial {best.number} of study small." in ran.err
    # One seed has no spread.
    assert ran.json["sd"] == dict.fromkeys(LOSSES) and ran.json["mean"] == {
        name: seed[name] for name in LOSSES
    }
    # The saved model has these losses, by their definition; the last is that of words that training never saw.
    model = load_checkpoint(ran.json["checkpoint"]).model
    for name, words in zip(LOSSES, split_words(read_words("words.txt")), strict=True):
        assert seed[name] == pytest.approx(whole_split_loss(model, words), abs=2e-6)


def test_a_loss_that_is_not_the_origins_is_said(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    best = ranked(load_study("small", None).get_trials())[0]
    loss = dev_loss(best) or 0.0
    FILE.write_text(FILE.read_text().replace(f"dev_loss = {loss!r}", f"dev_loss = {loss + 0.5!r}"))
    ran = retrain(FILE, "--json")
    assert ran.json["reproduced"] is False
    assert (
        f"-0.5 from trial {best.number} of study small: every digit is the same only on" in ran.err
    )


def test_a_pruned_trial_is_compared_where_it_was_best_and_goes_on(
    run_file: Any, retrain: Retrain
) -> None:
    study = load_study("small", None)
    best = ranked(study.get_trials())[0]
    step, early = 8, best.intermediate_values[8]
    run_file("experiments/export.py", "small")
    text = FILE.read_text().replace(f"dev_loss = {best.value!r}", f"dev_loss = {early!r}")
    FILE.write_text(
        text.replace("best_step = 40", f"best_step = {step}").replace(
            TrialState.COMPLETE.name, "PRUNED"
        )
    )
    ran = retrain(FILE)
    assert (
        f"The first seed has dev loss {early:.4f} at step 8, exactly as trial {best.number}"
        in ran.out
    )


# ---- more seeds


def test_seeds_side_by_side_come_to_what_each_comes_to_alone(
    run_file: Any, retrain: Retrain
) -> None:
    run_file("experiments/export.py", "small")
    ran = retrain(FILE, "--seeds", 3, "--workers", 2, "--json")
    rows = ran.json["seeds"]
    assert len({row["seed"] for row in rows}) == 3 and rows[0]["seed"] == read_config(FILE).seed
    assert rows == retrain(FILE, "--seeds", 3, "--workers", 1, "--json").json["seeds"]
    for name in LOSSES:
        values = [row[name] for row in rows]
        mean, sd = statistics.mean(values), statistics.stdev(values)
        assert (ran.json["mean"][name], ran.json["sd"][name]) == pytest.approx(
            (mean, sd), rel=1e-12
        )
        assert f"{mean:.4f} ± {sd:.4f}" in ran.err
    # The checkpoint is that of the median dev loss.
    model = load_checkpoint(ran.json["checkpoint"]).model
    median = sorted(rows, key=lambda row: row["dev_loss"])[1]
    assert ran.json["checkpoint"] == "mlruns/checkpoints/small.safetensors"
    assert model.config.seed == median["seed"]
    assert whole_split_loss(model, split_words(read_words("words.txt")).dev) == pytest.approx(
        median["dev_loss"], abs=2e-6
    )
    words = next(line for line in ran.err.splitlines() if line.startswith("20 words it makes up: "))
    assert len(words.removeprefix("20 words it makes up: ").split(", ")) == 20


def test_further_seeds_are_derived_from_the_first() -> None:
    config = Config(max_steps=40, eval_interval=4, seed=11)
    three, two = make_configs(config, 3, None), make_configs(config, 2, None)
    assert three[0] == config and three[:2] == two and len({c.seed for c in three}) == 3
    assert [c.replace(seed=11) for c in three] == [config] * 3
    assert make_configs(config.replace(seed=12), 2, None)[1].seed != two[1].seed


class Failing(CpuEngine):
    """An engine whose device fails the first `failures` times that a model is at an evaluation."""

    failures = 0

    def advance(self) -> list[tuple[int, Outcome]]:
        outcomes = super().advance()
        if self.failures and outcomes:
            self.failures -= 1
            return [(outcomes[0][0], EngineFailed("the device is lost")), *outcomes[1:]]
        return outcomes


def test_a_seed_whose_engine_fails_is_trained_again_but_not_for_ever(small_corpus: Corpus) -> None:
    configs = make_configs(Config(max_steps=30, eval_interval=10, n_hidden=8), 3, None)
    with closing(CpuEngine(small_corpus, 2)) as engine:
        expected = [result.history for result in train_all(engine, configs)]
    assert [history[-1].step for history in expected] == [30] * 3
    with closing(Failing(small_corpus, 2)) as engine:
        engine.failures = 2
        assert [result.history for result in train_all(engine, configs)] == expected
    with closing(Failing(small_corpus, 1)) as engine:
        engine.failures = 3
        with pytest.raises(EngineFailed, match="the device is lost"):
            train_all(engine, configs[:1])


def test_other_steps_keep_the_share_of_the_eval_interval(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    ran = retrain(FILE, "--steps", 100, "--json", "--out", "x/longer.safetensors")
    config = load_checkpoint(ran.json["checkpoint"]).model.config
    assert (ran.json["checkpoint"], config.max_steps, config.eval_interval) == (
        "x/longer.safetensors",
        100,
        10,
    )
    # It is another training, and not compared with the trial.
    assert (
        ran.json["reproduced"] is None and "exactly" not in ran.err and "from trial" not in ran.err
    )
    assert make_configs(Config(max_steps=1000, eval_interval=10), 1, 50)[0].eval_interval == 1


# ---- train and dev together, a selected seed


def test_train_and_dev_together_leave_no_dev_loss_and_keep_the_last_step(
    run_file: Any, retrain: Retrain
) -> None:
    run_file("experiments/export.py", "small")
    ran = retrain(FILE, "--on", "train+dev", "--seeds", 3, "--json")
    assert (ran.code, ran.json["trained_on"]) == (0, "train+dev")
    assert [row["best_step"] for row in ran.json["seeds"]] == [40] * 3
    assert set(ran.json["mean"]) == {"train_loss", "test_loss"}
    split, loaded = split_words(read_words("words.txt")), load_checkpoint(ran.json["checkpoint"])
    median = sorted(ran.json["seeds"], key=lambda row: row["train_loss"])[1]
    assert ran.json["selected_seed"] == loaded.model.config.seed == median["seed"]
    assert median["train_loss"] == pytest.approx(
        whole_split_loss(loaded.model, split.train + split.dev), abs=2e-6
    )
    assert median["test_loss"] == pytest.approx(
        whole_split_loss(loaded.model, split.test), abs=2e-6
    )
    assert loaded.metadata["trained_on"] == "train+dev"
    assert "the dev loss is no measure here" in ran.err and ran.json["reproduced"] is None
    # The same seeds on train alone come to other weights: the dev words were really trained on.
    alone = load_checkpoint(retrain(FILE, "--seeds", 3, "--json").json["checkpoint"]).model
    assert whole_split_loss(alone, split.train + split.dev) != median["train_loss"]


def test_joined_dev_words_stand_in_train_and_no_test_word_does(
    small_corpus: Corpus, words: list[str]
) -> None:
    joined, split = join_dev(small_corpus), split_words(words)
    assert list_words(joined.train, joined.vocab) == split.train + split.dev
    assert list_words(joined.dev, joined.vocab) == split.dev


def test_the_best_seed_is_kept_only_when_asked_for(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    for select, place in (("median", 1), ("best", 0)):
        ran = retrain(FILE, "--seeds", 3, "--select", select, "--json")
        ordered = sorted(ran.json["seeds"], key=lambda row: row["dev_loss"])
        assert ran.json["selected_seed"] == ordered[place]["seed"]
        assert load_checkpoint(ran.json["checkpoint"]).model.config.seed == ordered[place]["seed"]


# ---- MLflow


def test_mlflow_holds_a_parent_with_a_run_a_seed(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    ran = retrain(FILE, "--seeds", 2, "--json")
    client = connect(None)
    runs = find_runs(client, get_experiment(client, "retrain"))
    parent = next(run for run in runs if run.info.run_id == ran.json["mlflow_run_id"])
    children = {int(run.data.params["seed"]): run for run in runs if run is not parent}
    assert all(run.info.status == "FINISHED" for run in runs) and len(runs) == 3
    assert {run.data.tags["mlflow.parentRunId"] for run in children.values()} == {
        parent.info.run_id
    }
    assert parent.data.tags["origin.study"] == "small" and parent.info.run_name.endswith(" · small")
    # The run says how the test split was used.
    assert (
        parent.data.tags["test_split"] == "read once, after all training; nothing was chosen by it"
    )
    assert "The test split was read once, after all training; nothing was chosen by it." in ran.err
    assert {name: parent.data.metrics[name] for name in LOSSES} == ran.json["mean"]
    assert {name: parent.data.metrics[f"{name}_sd"] for name in LOSSES} == ran.json["sd"]
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files == {"config.toml", "model.safetensors", "samples.txt", "comparison.png"}
    for row in ran.json["seeds"]:
        run = children[row["seed"]]
        # Tables show the exact losses; the curve has a point an evaluation.
        assert {name: run.data.metrics[name] for name in LOSSES} == {
            name: row[name] for name in LOSSES
        }
        assert {m.step for m in client.get_metric_history(run.info.run_id, "dev_loss")} == set(
            range(4, 41, 4)
        )
    assert children[read_config(FILE).seed].data.params["lr"] == str(read_config(FILE).lr)


def test_a_run_that_mlflow_refuses_is_a_sentence(workdir: Path) -> None:
    run = FinishedRun("x", {}, [])
    with pytest.raises(
        ValueError, match=r"^MLflow did not take run 'x': No Experiment with id=999 exists$"
    ) as refused:
        log_run(connect(None), "999", run, {"name": "", "sha256": "", "source": ""})
    assert "\n" not in str(refused.value)


# ---- bad input


def test_other_data_than_the_studys_is_warned_of_with_both_names(
    run_file: Any, workdir: Path
) -> None:
    run_file("experiments/export.py", "small")
    lines = Path("words.txt").read_text().splitlines()
    Path("fewer.txt").write_text("\n".join(lines[:300]) + "\n")
    ran = run_file(RETRAIN, FILE, "--names", "fewer.txt", "--json")
    old, new = (load_corpus(name).sha256 for name in ("words.txt", "fewer.txt"))
    warning = next(line for line in ran.err.splitlines() if line.startswith("Warning"))
    assert warning.startswith(
        f"Warning: the config {FILE} was found on words.txt (sha256 {old}), and is trained on "
    )
    assert ran.code == 0 and f"fewer.txt (sha256 {new})" in warning
    assert ran.json["reproduced"] is None


def test_a_second_config_from_other_data_is_warned_of_too(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    Path("other.toml").write_text(FILE.read_text().replace('data_sha256 = "', 'data_sha256 = "0'))
    ran = retrain(FILE, "--against", "other.toml")
    warnings = [line for line in ran.err.splitlines() if line.startswith("Warning")]
    assert (
        len(warnings) == 1
        and "the config other.toml was found on words.txt (sha256 0" in warnings[0]
    )


def test_an_origin_that_lacks_its_loss_is_not_compared(run_file: Any, retrain: Retrain) -> None:
    run_file("experiments/export.py", "small")
    lines = FILE.read_text().splitlines()
    FILE.write_text("\n".join(line for line in lines if not line.startswith("dev_loss")) + "\n")
    ran = retrain(FILE, "--json")
    assert ran.code == 0 and ran.json["reproduced"] is None


def test_a_config_without_an_origin_is_trained(retrain: Retrain) -> None:
    Path("mine.toml").write_text("[config]\nmax_steps = 20\neval_interval = 10\nn_hidden = 8\n")
    ran = retrain("mine.toml", "--json")
    assert (ran.code, ran.json["name"], ran.json["reproduced"]) == (0, "mine", None)
    assert "Warning" not in ran.err


def test_a_training_that_diverges_ends_in_a_sentence_and_leaves_nothing(retrain: Retrain) -> None:
    Path("wild.toml").write_text("[config]\nmax_steps = 200\neval_interval = 50\nlr = 1e9\n")
    ran = retrain("wild.toml", "--seeds", 2)
    assert (ran.code, ran.out) == (1, "") and "training diverged: " in ran.err.splitlines()[-1]
    assert not Path("mlruns/checkpoints").exists()
    client = connect(None)
    assert find_runs(client, get_experiment(client, "retrain")) == []


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (
            ["none.toml"],
            "none.toml: no such file; give the path of a TOML file with a [config] table.",
        ),
        (["words.txt"], "words.txt: not valid TOML:"),
        (["typo.toml"], "typo.toml: n_hiden is not a field of Config; did you mean n_hidden."),
        (["value.toml"], "value.toml: lr must be greater than 0, but got -1."),
        (["origin.toml"], "origin.toml: origin must be a table, but is 3; remove that line."),
        (
            ["ok.toml", "--against", "none.toml"],
            "none.toml: no such file; give the path of a TOML file with",
        ),
        (
            ["ok.toml", "--against", "typo.toml"],
            "typo.toml: n_hiden is not a field of Config; did you mean n_hidden.",
        ),
        (["ok.toml", "--seeds", "0"], "--seeds must be at least 1, but got 0."),
        (["ok.toml", "--steps", "0"], "--steps must be at least 1, but got 0."),
        (["ok.toml", "--workers", "0"], "--workers must be at least 1, but got 0."),
        (["ok.toml", "--out", "mlruns"], "mlruns: is a directory; give --out the path of a file."),
        (
            ["ok.toml", "--names", "none.txt"],
            "none.txt: no such file; give a text file with one word per line.",
        ),
        (
            ["ok.toml", "--device", "abacus"],
            "device 'abacus' is unknown; use auto, cpu, cuda, cuda:0 (any index) or mps.",
        ),
        (["ok.toml", "--tracking-uri", "here"], "tracking URI 'here' has no scheme;"),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    workdir: Path, run_file: Any, flags: list[str], sentence: str
) -> None:
    Path("ok.toml").write_text("[config]\n")
    Path("typo.toml").write_text("[config]\nn_hiden = 100\n")
    Path("value.toml").write_text("[config]\nlr = -1\n")
    Path("origin.toml").write_text("origin = 3\n[config]\n")
    assert run_file(RETRAIN, *flags).refusal.startswith(sentence)
