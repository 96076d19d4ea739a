"""The sweep over learning rates: the lecture's range test, or with --trials a training run for each learning rate.

The range test takes one step at each of 1,000 learning rates and reads a suggestion off the losses. The lecture's own
sweep had a smaller model: --n-embd 2 --n-hidden 100. --audit measures which rule's suggestions train best.
"""

from __future__ import annotations

import json
import shutil
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import optuna
import torch

from makemore.config import Config
from makemore.data import load_corpus
from makemore.errors import UserError
from makemore.lr_plot import plot_lr_sweep
from makemore.lr_sweep import DEFAULT_RULE, MIN_POINTS, RULES, STOP, LrSweep, lr_range_test
from studies.harness.cli.args import StudyArgs, count_slots
from studies.harness.cli.commands import print_next, store_flags
from studies.harness.cli.script import given_flags, run_script
from studies.harness.cli.terminal import make_console, say
from studies.harness.search.launch import run_study
from studies.harness.search.lr_audit import (
    MODELS,
    N_LRS,
    audit,
    audit_json,
    audit_metrics,
    audit_sentences,
    audit_table,
)
from studies.harness.search.lr_range import plot_dev_losses
from studies.harness.search.samplers import EvenSampler
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import check_study_name, without_password
from studies.harness.tracking.client import connect, get_experiment
from studies.harness.tracking.runs import FinishedRun, describe_data, log_run

LECTURE = Config()


def space(trial: optuna.Trial, base: Config, lo: float, hi: float) -> Config:
    """Suggest the learning rate alone, log-uniform from `lo` to `hi`."""
    return base.replace(lr=trial.suggest_float("lr", lo, hi, log=True))


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Find a learning rate."""

    trials: int = 0
    """Learning rates to train with, each for --steps; with 0 the range test is made, on the CPU."""
    prune: bool = False
    """Stop trials early whose dev loss lies behind the others' at the same step."""
    repeats: int = 0
    """Further seeds that the three best trials are trained with at the end, to tell what a difference is worth."""
    lo: float = 1e-3
    """Lowest learning rate."""
    hi: float = 1.0
    """Highest learning rate."""
    range_steps: int = 1000
    """Steps of the range test, each at another learning rate."""
    stop: bool = True
    """Stop the range test where the loss has grown to four times its lowest; without, it stops at inf or nan alone."""
    audit: bool = False
    """Measure what each rule costs, on three set models: --steps of training at each suggestion and over the range."""
    block_size: int = LECTURE.block_size
    """Context length in characters."""
    n_embd: int = LECTURE.n_embd
    """Features of a character's embedding."""
    n_hidden: int = LECTURE.n_hidden
    """Tanh units."""
    batch_size: int = LECTURE.batch_size
    """Examples a step."""
    init: Literal["lecture", "kaiming"] = LECTURE.init
    """Scheme of the initial weights."""
    optimizer: Literal["sgd", "adamw"] = LECTURE.optimizer
    """What takes the steps; for adamw lower --lo and --hi."""


# What an audit heeds; its models and their ranges are its own.
AUDIT = frozenset("audit json names range_steps seed steps stop study tracking_uri workers".split())
MODEL = ("block_size", "n_embd", "n_hidden", "batch_size", "init", "optimizer")


def main(args: Args) -> int:
    """Make the range test, the audit of its rules, or the study. Returns the exit code."""
    _check(args)
    if args.audit:
        return audit_rules(args)
    base = Config(**{name: getattr(args, name) for name in MODEL})
    picture = MLRUNS / "pictures" / f"{args.study}{'' if args.trials else '-range-test'}.png"
    if args.trials == 0:
        return range_test(
            args, base.replace(seed=base.seed if args.seed is None else args.seed), picture
        )

    def write_picture(study: optuna.Study, folder: Path) -> None:
        picture.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(plot_dev_losses(study, picture), folder)
        say(make_console(stderr=args.json), f"Picture of dev loss against learning rate: {picture}")

    searched = partial(space, lo=args.lo, hi=args.hi)
    return run_study(
        args, searched, base, make_sampler=lambda seed: EvenSampler(), write_more=write_picture
    )


def _check(args: Args) -> None:
    check_study_name(args.study)
    if not 0 < args.lo < args.hi:
        raise UserError(
            f"--lo and --hi must be learning rates, 0 < lo < hi, but got {args.lo} and {args.hi}."
        )
    for flag, value, least in (
        ("--trials", args.trials, 0),
        ("--range-steps", args.range_steps, MIN_POINTS),
        ("--seed", args.seed or 0, 0),
        ("--steps", args.steps, 1),
        ("--workers", 1 if args.workers is None else args.workers, 1),
    ):
        if value < least:
            raise UserError(f"{flag} must be at least {least}, but got {value}.")
    alien = given_flags(args, exclude=AUDIT) if args.audit else []
    if alien:
        raise UserError(
            f"--audit goes over three models and ranges of its own; leave out {' '.join(alien)}."
        )


def range_test(args: Args, base: Config, picture: Path) -> int:
    """Make the range test, write its picture, and log both to MLflow."""
    began = time.time()
    corpus = load_corpus(args.names)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)
    sweep = lr_range_test(
        base,
        corpus,
        lo=args.lo,
        hi=args.hi,
        n_steps=args.range_steps,
        stop=STOP if args.stop else None,
    )
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_lr_sweep(sweep, picture)
    suggestions = {rule: sweep.suggest(rule) for rule in RULES}
    model = base.model_dump(exclude={"lr", "schedule", "max_steps", "eval_interval"})
    run = FinishedRun(
        name=f"range test: lr {sweep.suggest():.3g}",
        params={
            **model,
            "lo": args.lo,
            "hi": args.hi,
            "range_steps": args.range_steps,
            "stop": args.stop,
        },
        metrics=_metrics(sweep, suggestions),
        tags={"study": args.study, "kind": "range test"},
        files=[picture],
        started=began,
    )
    run_id = log_run(client, experiment_id, run, describe_data(corpus, args.names))
    _report(args, sweep, suggestions, picture)
    if args.json:
        outcome = {
            "suggested_lr": sweep.suggest(),
            "rule": DEFAULT_RULE,
            "suggestions": suggestions,
            "at_edge": sweep.at_edge,
            "stopped_at": sweep.stopped_at,
            "picture": str(picture),
            "mlflow_experiment_id": experiment_id,
            "mlflow_run_id": run_id,
            "seconds": round(time.time() - began, 3),
        }
        print(json.dumps(outcome))
    return 0


def _metrics(sweep: LrSweep, suggestions: dict[str, float]) -> list[tuple[str, float, int]]:
    curves = {
        "loss": sweep.losses,
        "smoothed_loss": sweep.smoothed,
        "log10_lr": np.log10(sweep.lrs),
    }
    rows = [
        (key, float(value), step)
        for key, values in curves.items()
        for step, value in enumerate(values)
    ]
    single = {
        "suggested_lr": sweep.suggest(),
        **{f"suggested_lr.{rule}": lr for rule, lr in suggestions.items()},
    }
    return rows + [(key, value, 0) for key, value in single.items()]


def _report(args: Args, sweep: LrSweep, suggestions: dict[str, float], picture: Path) -> None:
    console = make_console(stderr=args.json)
    say(
        console,
        f"Suggested learning rate: {sweep.suggest():.3g}, by the rule {DEFAULT_RULE}. All rules:",
        "bold",
    )
    for rule, lr in suggestions.items():
        say(console, f"  {rule:<9}{lr:<9.3g}{_meaning(rule)}")
    if sweep.stopped_at is not None:
        say(console, f"Stopped at learning rate {sweep.stopped_at:.3g}, where the loss blew up.")
    if sweep.at_edge:
        lowest = float(sweep.lrs[np.argmin(sweep.smoothed)])
        text = f"The loss is lowest at {lowest:.3g}, the edge of the range; a wider one (--lo, --hi) may say more."
        say(console, text, "yellow")
    say(console, f"Picture: {picture}")
    print_next(
        console,
        (
            "train with 16 learning rates of this range",
            "studies/lr_sweep.py",
            [*map(without_password, given_flags(args, exclude=("json",))), "--trials", "16"],
        ),
        (
            "see the run in the MLflow UI",
            "studies/ui.py",
            [args.study, *store_flags(args, storage=False)],
        ),
    )


def _meaning(rule: str) -> str:
    return (RULES[rule].__doc__ or "").rstrip(".").lower()


def audit_rules(args: Args) -> int:
    """Measure each rule's regret on the models, print the table, and log it to MLflow."""
    began, seed, slots = time.time(), args.seed or 0, count_slots("cpu", args.workers, N_LRS)
    torch.set_num_threads(1)  # the slots are the parallelism
    corpus, client = load_corpus(args.names), connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)
    progress, audits, stop = make_console(stderr=True), [], STOP if args.stop else None
    for model in MODELS:
        done = audit(
            model,
            corpus,
            steps=args.steps,
            range_steps=args.range_steps,
            stop=stop,
            seed=seed,
            slots=slots,
        )
        say(
            progress,
            f"{model.name}: lowest dev loss {done.dev_losses.min():.4f} at lr {done.best_lr:.3g}",
        )
        audits.append(done)
    outcome = audit_json(audits)
    params = {"steps": args.steps, "range_steps": args.range_steps, "stop": args.stop, "seed": seed}
    name, tags = (
        f"audit: {outcome['least_regret']}",
        {"study": args.study, "kind": "audit of the range test's rules"},
    )
    run = FinishedRun(name, params, audit_metrics(audits), tags, started=began)
    run_id = log_run(client, experiment_id, run, describe_data(corpus, args.names))
    console = make_console(stderr=args.json)
    console.print(audit_table(audits))
    for sentence in audit_sentences(audits, args.steps):
        say(console, sentence)
    if args.json:
        stores = {"mlflow_experiment_id": experiment_id, "mlflow_run_id": run_id}
        print(json.dumps({**outcome, **params, **stores, "seconds": round(time.time() - began, 3)}))
    return 0


if __name__ == "__main__":
    run_script(Args, main)
