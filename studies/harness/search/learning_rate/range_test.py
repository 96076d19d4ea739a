"""The range test as a script: run it, draw it, log it to MLflow, and print the suggestions."""

from __future__ import annotations

import json
import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.lr_plot import plot_lr_sweep
from makemore.lr_sweep import DEFAULT_RULE, RULES, STOP, LrSweep, lr_range_test
from studies.harness.cli.commands import print_next, store_flags
from studies.harness.cli.script import given_flags
from studies.harness.cli.terminal import make_console, say
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import without_password
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.runs import describe_data
from studies.harness.tracking.whole_runs import FinishedRun, log_run


def decade_around_suggestion(config: Config, corpus: Corpus) -> tuple[float, float]:
    """Return the decade of learning rates around the suggestion of a range test.

    The ends have three significant digits, and the test runs in one thread, because the next launch
    of the same study must find exactly the same range.
    """
    torch.set_num_threads(1)
    suggestion = lr_range_test(config, corpus).suggest()
    return float(f"{suggestion / math.sqrt(10):.3g}"), float(f"{suggestion * math.sqrt(10):.3g}")


def run_range_test(args: Any, base: Config) -> int:
    """Run the range test, write its picture, log it, and print it. Returns the exit code.

    Args:
        args: flags of studies/lr_sweep.py.
        base: the model to test.

    Raises:
        UserError: MLflow cannot be reached, or the loss is not finite from the start.
    """
    began = time.time()
    if args.seed is not None:
        base = base.replace(seed=args.seed)
    corpus = load_corpus(args.names)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)

    stop = STOP if args.stop else None
    sweep = lr_range_test(base, corpus, lo=args.lo, hi=args.hi, n_steps=args.range_steps, stop=stop)
    picture = MLRUNS / "pictures" / f"{args.study}-range-test.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    plot_lr_sweep(sweep, picture)

    run = _finished_run(args, base, sweep, picture, began)
    run_id = log_run(client, experiment_id, run, describe_data(corpus, args.names))
    _print(args, sweep, picture)
    if args.json:
        stores = {"mlflow_experiment_id": experiment_id, "mlflow_run_id": run_id}
        seconds = round(time.time() - began, 3)
        print(json.dumps({**_outcome(sweep, picture), **stores, "seconds": seconds}))
    return 0


def suggestions(sweep: LrSweep) -> dict[str, float]:
    """Return the learning rate that each rule suggests."""
    return {rule: sweep.suggest(rule) for rule in RULES}


def _finished_run(
    args: Any, base: Config, sweep: LrSweep, picture: Path, began: float
) -> FinishedRun:
    model = base.model_dump(exclude={"lr", "schedule", "max_steps", "eval_interval"})
    test = {name: getattr(args, name) for name in ("lo", "hi", "range_steps", "stop")}
    return FinishedRun(
        name=f"range test: lr {sweep.suggest():.3g}",
        params={**model, **test},
        metrics=_metrics(sweep),
        tags={"study": args.study, "kind": "range test"},
        files=[picture],
        started=began,
    )


def _metrics(sweep: LrSweep) -> list[tuple[str, float, int]]:
    """Return MLflow metrics (key, value, step): a point for each step, then the suggestions."""
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
    rows.append(("suggested_lr", sweep.suggest(), 0))
    rows += [(f"suggested_lr.{rule}", lr, 0) for rule, lr in suggestions(sweep).items()]
    return rows


def _print(args: Any, sweep: LrSweep, picture: Path) -> None:
    console = make_console(stderr=args.json)
    suggested = f"Suggested learning rate: {sweep.suggest():.3g}, by the rule {DEFAULT_RULE}."
    say(console, f"{suggested} All rules:", "bold")
    for rule, lr in suggestions(sweep).items():
        meaning = (RULES[rule].__doc__ or "").rstrip(".").lower()
        say(console, f"  {rule:<9}{lr:<9.3g}{meaning}")
    if sweep.stopped_at is not None:
        say(console, f"Stopped at learning rate {sweep.stopped_at:.3g}, where the loss blew up.")
    if sweep.at_edge:
        lowest = float(sweep.lrs[np.argmin(sweep.smoothed)])
        sentence = (
            f"The loss is lowest at {lowest:.3g}, at the edge of the range; give a wider range "
            "with --lo and --hi."
        )
        say(console, sentence, "yellow")
    say(console, f"Picture: {picture}")

    flags = [without_password(flag) for flag in given_flags(args, exclude=("json",))]
    view = [args.study, *store_flags(args, storage=False)]
    print_next(
        console,
        (
            "train with 16 learning rates of this range",
            "studies/lr_sweep.py",
            [*flags, "--trials", "16"],
        ),
        ("see the run in the MLflow UI", "studies/ui.py", view),
    )


def _outcome(sweep: LrSweep, picture: Path) -> dict[str, Any]:
    return {
        "suggested_lr": sweep.suggest(),
        "rule": DEFAULT_RULE,
        "suggestions": suggestions(sweep),
        "at_edge": sweep.at_edge,
        "stopped_at": sweep.stopped_at,
        "picture": str(picture),
    }
