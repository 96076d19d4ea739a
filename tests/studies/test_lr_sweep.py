"""The range test as a script, the audit of its rules, and the sweep of whole trainings."""

from __future__ import annotations

import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from makemore.cli import parse_args
from makemore.config import Config
from makemore.data import load_corpus
from makemore.lr_sweep import DEFAULT_RULE, MIN_POINTS, RULES, lr_range_test
from studies.harness.search.learning_rate.audit import N_SEEDS
from studies.harness.search.learning_rate.checks import MIN_RANGE_STEPS
from studies.harness.store.study import load_study
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.lr_sweep import Args

SWEEP = "studies/lr_sweep.py"
PNG = b"\x89PNG"
Sweep = Callable[..., Any]


@pytest.fixture
def sweep(names: Path, run_file: Any) -> Sweep:
    """Run the script on a small model."""
    model = "--n-embd 2 --n-hidden 16 --batch-size 16 --block-size 4 --init kaiming".split()
    return lambda *flags: run_file(SWEEP, "--names", names, *model, *flags)


def history(run: Any, key: str) -> list[float]:
    points = connect(None).get_metric_history(run.info.run_id, key)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def artifacts(run: Any) -> set[str]:
    return {item.path for item in connect(None).list_artifacts(run.info.run_id)}


# ---- the range test


def test_range_test_prints_and_logs_its_suggestions(sweep: Sweep, names: Path) -> None:
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
    # The terminal shows each rule with its suggestion.
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


def test_edge_is_reported_and_next_command_repeats_flags(sweep: Sweep, names: Path) -> None:
    ran = sweep("--range-steps", 60, "--lo", 1e-5, "--hi", 1e-3, "--prune")
    assert "at the edge of the range; give a wider range with --lo and --hi." in ran.out
    command = next(line for line in ran.out.splitlines() if "--trials 16" in line)
    flags = shlex.split(command.split("studies/lr_sweep.py")[1], comments=True)
    assert parse_args(Args, flags) == Args(
        names=names, n_embd=2, n_hidden=16, batch_size=16, block_size=4, init="kaiming",
        range_steps=60, lo=1e-5, hi=1e-3, trials=16, prune=True,
    )  # fmt: skip


def test_range_test_can_run_without_the_stop(sweep: Sweep) -> None:
    flags = ("--range-steps", 300, "--hi", 1e3, "--json")
    stopped, whole = sweep(*flags), sweep(*flags, "--no-stop")
    assert stopped.json["stopped_at"] < 1e3 and whole.json["stopped_at"] is None
    assert "where the loss blew up" in stopped.err and "where the loss blew up" not in whole.err
    # It continues where the other one ended, and MLflow records which one it was.
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


def test_audit_prints_and_logs_each_rules_regret(run_file: Any, names: Path) -> None:
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
        f"Lowest regret, by the mean over the models of the median: {found['least_regret']};"
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
    flags = "--steps 20 --lo 0.01 --hi 10 --study lrs --json --workers 2".split()
    first = sweep("--trials", 5, *flags)
    assert (first.code, first.json["trials"], first.json["pruned"]) == (0, 5, 0)
    before = [trial.params["lr"] for trial in load_study("lrs", None).get_trials()]
    more = sweep("--trials", 8, *flags)
    study = load_study("lrs", None)
    lrs = [trial.params["lr"] for trial in study.get_trials()]
    # Further trials fill the gaps between the first ones.
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


# ---- bad input


BAD_FLAGS = {
    "--lo 1 --hi 0.1": ("--lo and --hi must be learning rates, 0 < lo < hi, but got 1.0 and 0.1."),
    "--lo 1 --hi 0.1 --trials 3": (
        "--lo and --hi must be learning rates, 0 < lo < hi, but got 1.0 and 0.1."
    ),
    "--range-steps 3": "--range-steps must be at least 10, but got 3.",
    "--steps 0": "--steps must be at least 1, but got 0.",
    "--workers 0": "--workers must be at least 1, but got 0.",
    "--trials -1": "--trials must be at least 0, but got -1.",
    "--range lr=0.1:1": (
        "--range needs --trials: the range test takes its learning rates from --lo and --hi; leave "
        "out --range lr=0.1:1."
    ),
    "--seed -1": "--seed must be at least 0, but got -1.",
    "--n-hidden 0": "Parameter --n-hidden specified multiple times.",
    "--audit --lo 0.01": (
        "--audit has its own models and ranges of learning rates; leave out --lo 0.01 "
        "--block-size 4 --n-embd 2 --n-hidden 16 --batch-size 16 --init kaiming."
    ),
}


@pytest.mark.parametrize("flags", BAD_FLAGS)
def test_bad_flags_are_refused_in_a_sentence(sweep: Sweep, flags: str) -> None:
    assert sweep(*flags.split()).refusal == BAD_FLAGS[flags]


def test_bad_study_name_is_refused(sweep: Sweep) -> None:
    assert sweep("--study", "a/b").refusal.startswith("study name 'a/b' cannot be used")


def test_range_without_a_finite_loss_is_refused(sweep: Sweep) -> None:
    ran = sweep("--lo", 1e6, "--hi", 1e9)
    assert (ran.code, ran.out) == (2, "")
    assert ran.err.splitlines()[-1].startswith("the loss blew up at learning rate")


def test_least_range_steps_are_those_of_the_range_test() -> None:
    assert MIN_RANGE_STEPS == MIN_POINTS
