"""The range test as a script, and the sweep that trains with each learning rate."""

from __future__ import annotations

import math
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest

from makemore.cli import parse_args
from makemore.config import Config
from makemore.data import load_corpus
from makemore.lr_sweep import DEFAULT_RULE, RULES, lr_range_test
from studies.harness.search.learning_rate.audit import N_SEEDS
from studies.harness.search.samplers import EvenSampler
from studies.harness.store.study import load_study
from studies.harness.tracking.client import connect, find_runs, get_experiment
from studies.lr_sweep import Args

SWEEP = "studies/lr_sweep.py"
PNG = b"\x89PNG"
Sweep = Callable[..., Any]


@pytest.fixture
def sweep(names: Path, run_file: Any) -> Sweep:
    """Run the script on a small model."""
    model = (
        "--n-embd",
        2,
        "--n-hidden",
        16,
        "--batch-size",
        16,
        "--block-size",
        4,
        "--init",
        "kaiming",
    )
    return lambda *flags: run_file(SWEEP, "--names", names, *model, *flags)


def history(run: Any, key: str) -> list[float]:
    points = connect(None).get_metric_history(run.info.run_id, key)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def artifacts(run: Any) -> set[str]:
    return {item.path for item in connect(None).list_artifacts(run.info.run_id)}


# ---- the range test


def test_the_range_test_prints_saves_and_logs_what_the_function_finds(
    sweep: Sweep, names: Path
) -> None:
    ran = sweep("--range-steps", 80, "--lo", 0.002, "--hi", 2, "--seed", 5, "--json")
    config = Config(n_embd=2, n_hidden=16, batch_size=16, block_size=4, init="kaiming", seed=5)
    expected = lr_range_test(config, load_corpus(names), lo=0.002, hi=2, n_steps=80)
    found = ran.json
    assert ran.code == 0 and (found["rule"], found["suggested_lr"]) == (
        DEFAULT_RULE,
        expected.suggest(),
    )
    assert found["suggestions"] == {rule: expected.suggest(rule) for rule in RULES}
    assert Path(found["picture"]).read_bytes().startswith(PNG)
    # Each rule stands in the terminal with its reading.
    lines = {
        line.split()[0]: line.split()[1] for line in ran.err.splitlines() if line.startswith("  ")
    }
    assert {rule: lines[rule] for rule in RULES} == {
        rule: f"{lr:.3g}" for rule, lr in found["suggestions"].items()
    }
    # MLflow holds one finished run with all of it.
    client = connect(None)
    assert found["mlflow_experiment_id"] == get_experiment(client, "lr_sweep")
    (run,) = find_runs(client, found["mlflow_experiment_id"])
    assert (run.info.run_id, run.info.status) == (found["mlflow_run_id"], "FINISHED")
    assert history(run, "loss") == list(expected.losses)
    assert history(run, "log10_lr") == pytest.approx(np.log10(expected.lrs))
    assert run.data.metrics["suggested_lr"] == expected.suggest()
    assert run.data.metrics["suggested_lr.steepest"] == expected.suggest("steepest")
    shown = {key: run.data.params[key] for key in ("n_hidden", "seed", "init", "lo", "range_steps")}
    assert shown == {
        "n_hidden": "16",
        "seed": "5",
        "init": "kaiming",
        "lo": "0.002",
        "range_steps": "80",
    }
    assert artifacts(run) == {"lr_sweep-range-test.png"}
    assert run.inputs.dataset_inputs[0].dataset.digest == load_corpus(names).sha256[:32]


def test_a_minimum_at_the_edge_is_said_and_the_next_command_repeats_the_flags(
    sweep: Sweep, names: Path
) -> None:
    ran = sweep("--range-steps", 60, "--lo", 1e-5, "--hi", 1e-3, "--prune")
    assert "the edge of the range; a wider one (--lo, --hi) may say more" in ran.out
    command = next(line for line in ran.out.splitlines() if "--trials 16" in line)
    flags = shlex.split(command.split("studies/lr_sweep.py")[1], comments=True)
    assert parse_args(Args, flags) == Args(
        names=names, n_embd=2, n_hidden=16, batch_size=16, block_size=4, init="kaiming",
        range_steps=60, lo=1e-5, hi=1e-3, trials=16, prune=True,
    )  # fmt: skip


def test_the_stop_can_be_left_out(sweep: Sweep) -> None:
    flags = ("--range-steps", 300, "--hi", 1e3, "--json")
    stopped, whole = sweep(*flags), sweep(*flags, "--no-stop")
    assert stopped.json["stopped_at"] < 1e3 and whole.json["stopped_at"] is None
    assert "where the loss blew up" in stopped.err and "where the loss blew up" not in whole.err
    # It goes on where the other ended, and MLflow says which it was.
    runs = {
        run.data.params["stop"]: run
        for run in find_runs(connect(None), whole.json["mlflow_experiment_id"])
    }
    losses = {stop: history(run, "loss") for stop, run in runs.items()}
    assert len(losses["False"]) == 300 > len(losses["True"])
    assert losses["False"][: len(losses["True"])] == losses["True"]
    # The next command keeps the flag.
    assert "--no-stop" in sweep(*flags[:4], "--no-stop").out


# ---- the audit of the rules


def test_the_audit_prints_and_logs_each_rules_regret(run_file: Any, names: Path) -> None:
    ran = run_file(
        SWEEP, "--names", names, "--audit", "--steps", 8, "--range-steps", 12, "--json", "--seed", 3
    )
    found = ran.json
    assert ran.code == 0 and len(found["models"]) == 3
    for model in found["models"]:
        assert model["model"] in ran.err and set(model["rules"]) == set(RULES)
        assert model["lowest_dev_loss"] == min(model["dev_losses"])
        for rule in model["rules"].values():
            assert len(rule["regrets"]) == len(rule["lrs"]) == N_SEEDS
            assert (rule["median_regret"], rule["worst_regret"]) == (
                np.median(rule["regrets"]),
                max(rule["regrets"]),
            )
    means = {
        rule: np.mean([m["rules"][rule]["median_regret"] for m in found["models"]])
        for rule in RULES
    }
    assert found["mean_regret"] == pytest.approx(means) and found["least_regret"] == min(
        means, key=means.__getitem__
    )
    assert (
        f"Least regret, by the mean over the models of the median: {found['least_regret']};"
        in ran.err
    )
    # MLflow holds one finished run with the same figures.
    (run,) = find_runs(connect(None), found["mlflow_experiment_id"])
    assert (run.info.run_id, run.info.status) == (found["mlflow_run_id"], "FINISHED")
    assert {rule: run.data.metrics[f"regret.{rule}"] for rule in RULES} == found["mean_regret"]
    assert (
        run.data.metrics["worst_regret.adamw.basin"]
        == found["models"][2]["rules"]["basin"]["worst_regret"]
    )
    assert history(run, "dev_loss.small") == found["models"][1]["dev_losses"]
    assert (run.data.params["steps"], run.data.params["seed"]) == ("8", "3")


# ---- the sweep of whole trainings


def test_each_learning_rate_is_trained_and_drawn(sweep: Sweep) -> None:
    first = sweep(
        "--trials",
        5,
        "--steps",
        20,
        "--lo",
        0.01,
        "--hi",
        10,
        "--study",
        "lrs",
        "--json",
        "--workers",
        2,
    )
    assert (first.code, first.json["trials"], first.json["pruned"]) == (0, 5, 0)
    before = [trial.params["lr"] for trial in load_study("lrs", None).get_trials()]
    more = sweep(
        "--trials",
        8,
        "--steps",
        20,
        "--lo",
        0.01,
        "--hi",
        10,
        "--study",
        "lrs",
        "--json",
        "--workers",
        2,
    )
    study = load_study("lrs", None)
    lrs = [trial.params["lr"] for trial in study.get_trials()]
    # More trials fill the gaps between those that are there.
    assert lrs[:5] == before and len(set(lrs)) == 8 and all(0.01 <= lr <= 10 for lr in lrs)
    assert (
        study.user_attrs["base"]["n_hidden"] == 16 and study.user_attrs["base"]["max_steps"] == 20
    )
    picture = Path("mlruns/pictures/lrs.png")
    assert f"Picture of dev loss against learning rate: {picture}" in more.err.splitlines()
    parent = connect(None).get_run(more.json["mlflow_run_id"])
    assert "lrs.png" in artifacts(parent)
    logged = connect(None).download_artifacts(parent.info.run_id, "lrs.png")
    assert Path(logged).read_bytes() == picture.read_bytes() and picture.read_bytes().startswith(
        PNG
    )


def test_the_sampler_leaves_no_gap_however_many_trials_there_are() -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=EvenSampler())
    exponents: list[float] = []
    for n in range(1, 65):
        trial = study.ask()
        exponents.append(math.log10(trial.suggest_float("lr", 1e-3, 1.0, log=True)))
        gaps = np.diff([-3, *sorted(exponents), 0])
        # The widest gap stays within twice that of n evenly spaced points.
        assert gaps.max() <= 2 * 3 / (n + 1) and gaps.min() > 0


def test_the_sampler_refuses_what_it_cannot_spread() -> None:
    study = optuna.create_study(sampler=EvenSampler())
    with pytest.raises(TypeError, match="EvenSampler takes log-uniform floats, but n is"):
        study.ask().suggest_int("n", 1, 3)


# ---- bad input


def test_bad_input_is_refused_in_a_sentence(sweep: Sweep) -> None:
    refusals = {
        (
            "--lo",
            1,
            "--hi",
            0.1,
        ): "--lo and --hi must be learning rates, 0 < lo < hi, but got 1.0 and 0.1.",
        (
            "--lo",
            1,
            "--hi",
            0.1,
            "--trials",
            3,
        ): "--lo and --hi must be learning rates, 0 < lo < hi, but got 1.0 and 0.1.",
        ("--range-steps", 3): "--range-steps must be at least 10, but got 3.",
        ("--steps", 0): "--steps must be at least 1, but got 0.",
        ("--workers", 0): "--workers must be at least 1, but got 0.",
        ("--trials", -1): "--trials must be at least 0, but got -1.",
        ("--seed", -1): "--seed must be at least 0, but got -1.",
        ("--n-hidden", 0): "Parameter --n-hidden specified multiple times.",
        (
            "--study",
            "a/b",
        ): "study name 'a/b' cannot be used; take 1 to 100 of the characters a-z A-Z 0-9 . _ - and begin "
        "with a letter or a digit.",
    }
    assert {flags: sweep(*flags).refusal for flags in refusals} == refusals
    assert sweep("--audit", "--lo", 0.01).refusal == (
        "--audit goes over three models and ranges of its own; leave out --lo 0.01 --block-size 4 --n-embd 2 "
        "--n-hidden 16 --batch-size 16 --init kaiming."
    )
    assert sweep("--lo", 1e6, "--hi", 1e9).refusal.startswith("the loss blew up at learning rate")
