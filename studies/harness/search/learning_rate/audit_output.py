"""The audit as a script: run it on all models, log it to MLflow, and print its table."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from rich import box
from rich.table import Table

from makemore.data import Corpus, load_corpus
from makemore.engines.base import DIVERGED_LOSS
from makemore.lr_sweep import DEFAULT_RULE, STOP
from studies.harness.cli.args import count_slots
from studies.harness.cli.terminal import make_console, say
from studies.harness.search.learning_rate.audit import MODELS, N_LRS, N_SEEDS, LrAudit, audit, rank
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.runs import describe_data
from studies.harness.tracking.whole_runs import FinishedRun, log_run


def run_audit(args: Any) -> int:
    """Audit all models, log the result, and print it. Returns the exit code.

    Args:
        args: flags of studies/lr_sweep.py.

    Raises:
        UserError: MLflow cannot be reached.
    """
    began = time.time()
    torch.set_num_threads(1)  # the slots are the parallelism
    corpus = load_corpus(args.names)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)

    params = {
        "steps": args.steps,
        "range_steps": args.range_steps,
        "stop": args.stop,
        "seed": args.seed or 0,
    }
    audits = _audit_all(args, corpus, seed=params["seed"])
    outcome = audit_json(audits)
    run = FinishedRun(
        name=f"audit: {outcome['least_regret']}",
        params=params,
        metrics=audit_metrics(audits),
        tags={"study": args.study, "kind": "audit of the range test's rules"},
        started=began,
    )
    run_id = log_run(client, experiment_id, run, describe_data(corpus, args.names))
    console = make_console(stderr=args.json)
    console.print(audit_table(audits))
    for sentence in audit_sentences(audits, args.steps):
        say(console, sentence)
    if args.json:
        stores = {"mlflow_experiment_id": experiment_id, "mlflow_run_id": run_id}
        print(json.dumps({**outcome, **params, **stores, "seconds": round(time.time() - began, 3)}))
    return 0


def _audit_all(args: Any, corpus: Corpus, seed: int) -> list[LrAudit]:
    """Audit each model, and print a line after each."""
    slots = count_slots("cpu", args.workers, N_LRS)
    audits = []
    for model in MODELS:
        done = audit(
            model,
            corpus,
            steps=args.steps,
            range_steps=args.range_steps,
            stop=STOP if args.stop else None,
            seed=seed,
            slots=slots,
        )
        lowest = f"lowest dev loss {done.dev_losses.min():.4f} at lr {done.best_lr:.3g}"
        say(make_console(stderr=True), f"{model.name}: {lowest}")
        audits.append(done)
    return audits


def audit_table(audits: Sequence[LrAudit]) -> Table:
    """Return a table with a row for each model and rule, and the rules' means at the end."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for heading in ("suggested lr", "median regret", "worst regret"):
        table.add_column(heading, justify="right")
    for a in audits:
        table.add_row(a.model.name, style="bold")
        table.add_row("  lowest of the sweep", f"{a.best_lr:.2g}", f"dev {a.dev_losses.min():.4f}")
        for rule, regrets in a.regrets.items():
            lrs = a.suggestions[rule]
            span = f"{lrs.min():.2g} to {lrs.max():.2g}"
            table.add_row(f"  {rule}", span, f"{np.median(regrets):.4f}", f"{regrets.max():.4f}")
        table.add_section()
    table.add_row("mean of the models' medians, lowest first", style="bold")
    for rule, mean in rank(audits).items():
        table.add_row(f"  {rule}", "", f"{mean:.4f}", "")
    return table


def audit_sentences(audits: Sequence[LrAudit], steps: int) -> list[str]:
    """Return sentences that define regret and name the best rule."""
    best = next(iter(rank(audits)))
    definition = (
        f"Regret: the dev loss after {steps:,} steps at a suggestion, minus the lowest of {N_LRS} "
        f"learning rates, in nats per character, over {N_SEEDS} range tests. A diverged training "
        f"counts as {DIVERGED_LOSS:g} nats."
    )
    verdict = "it is the default" if best == DEFAULT_RULE else f"the default is {DEFAULT_RULE}"
    return [
        definition,
        f"Lowest regret, by the mean over the models of the median: {best}; {verdict}.",
    ]


def audit_metrics(audits: Sequence[LrAudit]) -> list[tuple[str, float, int]]:
    """Return MLflow metrics (key, value, step): the means first, then each model's sweep.

    A sweep has one learning rate per step.
    """
    rows = [(f"regret.{rule}", mean, 0) for rule, mean in rank(audits).items()]
    for a in audits:
        key = a.model.key
        for rule, regrets in a.regrets.items():
            rows.append((f"median_regret.{key}.{rule}", float(np.median(regrets)), 0))
        for rule, regrets in a.regrets.items():
            rows.append((f"worst_regret.{key}.{rule}", float(regrets.max()), 0))
        for name, curve in (("log10_lr", np.log10(a.lrs)), ("dev_loss", a.dev_losses)):
            rows += [(f"{name}.{key}", float(value), i) for i, value in enumerate(curve)]
    return rows


def audit_json(audits: Sequence[LrAudit]) -> dict[str, Any]:
    """Return the audit as the object that --json prints."""
    means = rank(audits)
    return {
        "least_regret": next(iter(means)),
        "default_rule": DEFAULT_RULE,
        "mean_regret": means,
        "diverged_loss": DIVERGED_LOSS,
        "models": [_model_json(a) for a in audits],
    }


def _model_json(a: LrAudit) -> dict[str, Any]:
    rules = {
        rule: {
            "median_regret": float(np.median(regrets)),
            "worst_regret": float(regrets.max()),
            "lrs": a.suggestions[rule].tolist(),
            "regrets": regrets.tolist(),
        }
        for rule, regrets in a.regrets.items()
    }
    return {
        "model": a.model.name,
        "best_lr": a.best_lr,
        "lowest_dev_loss": float(a.dev_losses.min()),
        "lrs": a.lrs.tolist(),
        "dev_losses": a.dev_losses.tolist(),
        "rules": rules,
    }
