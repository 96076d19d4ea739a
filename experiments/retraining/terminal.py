"""Print a retraining on the terminal: a table of losses, sentences about them, next commands."""

from __future__ import annotations

import math
import os
import shlex
import shutil
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.registry import Registered
from experiments.retraining.results import TRAIN, Outcome, Retraining, SeedResult
from experiments.retraining.tracking import EXPERIMENT, test_use
from makemore.model_class import source_of
from makemore.models import class_of
from studies.harness.cli.commands import print_next
from studies.harness.cli.terminal import say
from studies.harness.store.text import without_password
from studies.harness.store.winner.noise import MIN_REPEATS, t_quantile

PORT = 5100  # of the proposed serving command; the MLflow UI uses ports from 5000 on
HEADINGS = {"train_loss": "train", "dev_loss": "dev", "test_loss": "test"}


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print the table and the sentences below it."""
    retraining = outcome.retraining
    steps = retraining.seeds[0].config.max_steps
    weights = "the best" if retraining.trained_on == TRAIN else "the last"
    size = f"{retraining.selected.result.n_params:,} parameters, {steps:,} steps"
    losses = f"losses at {weights} evaluation, nats per character"
    say(console, f"{retraining.name}: {size}; {losses}:", "bold")
    console.print(_table(outcome))
    for sentence in _sentences(outcome):
        say(console, sentence)


def _table(outcome: Outcome) -> Table:
    """Return a table with a row per seed, the means, and the baselines."""
    retraining = outcome.retraining
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    table.add_column("best_step", justify="right")
    for loss in retraining.losses:
        heading = retraining.trained_on if loss == "train_loss" else HEADINGS[loss]
        table.add_column(heading, justify="right")

    for name, seeds in outcome.sides:
        _add_side(table, name if outcome.rival else "", seeds, retraining.losses)
    for baseline in outcome.baselines:
        known = baseline.losses
        cells = (f"{known[loss]:.4f}" if loss in known else "" for loss in retraining.losses)
        table.add_row(baseline.name, "", *cells)
    return table


def _add_side(table: Table, name: str, seeds: Sequence[SeedResult], losses: Sequence[str]) -> None:
    """Add the rows of one config's seeds, and their mean and standard deviation."""
    for seed in seeds:
        cells = [f"{seed.losses[loss]:.4f}" for loss in losses]
        heading = f"{name} seed {seed.config.seed}".strip()
        table.add_row(heading, f"{seed.result.best.step:,}", *cells)

    if len(seeds) > 1:
        cells = []
        for loss in losses:
            values = [seed.losses[loss] for seed in seeds]
            cells.append(f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}")
        table.add_row(f"{name} mean ± sd".strip(), "", *cells, style="bold")
    table.add_section()


def _sentences(outcome: Outcome) -> list[str]:
    """Return the sentences below the table."""
    retraining = outcome.retraining
    difference = outcome.difference
    sentences = []
    if retraining.trained_on != TRAIN:
        sentences += _train_and_dev_sentences(retraining)
    if difference is not None:
        over = "words and seeds" if difference.seeded else "words"
        split = HEADINGS[retraining.losses[-1]]
        sentences.append(f"{split.title()} loss: {difference.sentence}; 95% interval over {over}.")
        if not difference.seeded:
            sentences.append(
                "With one seed each, that interval leaves out the noise of the seeds; "
                "give --seeds 5."
            )
    sentences.append(f"The test split was {test_use(retraining)}.")
    if retraining.reproduced_loss is not None:
        sentences.append(_reproduction(retraining.reproduced_loss, retraining.origin))
    sentences += _without_selection(retraining)
    if retraining.teacher is not None:
        sentences.append(
            "If the ensemble was chosen on the dev words, these dev losses are slightly too low."
        )
    sentences.append(f"{len(outcome.samples)} sampled words: {', '.join(outcome.samples)}")

    chosen = ""
    if len(retraining.seeds) > 1:
        rank = "median" if retraining.select == "median" else "lowest"
        chosen = f", the seed with the {rank} {HEADINGS[retraining.selection_loss]} loss"
    replaced = "; it replaces the file that was there" if outcome.replaces else ""
    return [*sentences, f"Saved as {outcome.checkpoint}{chosen}{replaced}"]


def _train_and_dev_sentences(retraining: Retraining) -> list[str]:
    """Return the remarks about training on train and dev together."""
    sentences = [
        "Trained on train and dev together: no dev loss can be measured, "
        "and the last step's weights are kept."
    ]
    best = retraining.origin.get("best_step")
    steps = min(retraining.config.max_steps, retraining.seeds[0].config.max_steps)
    if isinstance(best, int) and best < steps:
        sentences.append(f"On train alone the best step was {best:,}; --steps stops earlier.")
    return sentences


def _without_selection(retraining: Retraining) -> list[str]:
    """Return the dev loss of the seeds with which the study did not find the config."""
    seeds = retraining.seeds[1:]
    if retraining.reproduced_loss is None or not seeds:
        return []
    losses = [seed.losses["dev_loss"] for seed in seeds]
    why = "The study found this config with the first seed, so that loss is partly luck."
    if len(losses) < MIN_REPEATS:
        return [f"{why} The other seed has dev loss {losses[0]:.4f}."]
    margin = t_quantile(len(losses) - 1) * statistics.stdev(losses) / math.sqrt(len(losses))
    mean = f"{statistics.fmean(losses):.4f} ± {margin:.4f} (95%)"
    return [f"{why} The other {len(losses)} have mean dev loss {mean}."]


def _reproduction(loss: float, origin: dict[str, Any]) -> str:
    """Compare the first seed's dev loss with the exported trial's."""
    trial = f"trial {origin.get('trial')} of study {origin.get('study')}"
    measured = f"The first seed has dev loss {loss:.4f} at step {origin['best_step']:,}"
    if loss == origin["dev_loss"]:
        return f"{measured}, exactly as {trial}."
    return (
        f"{measured}, {loss - origin['dev_loss']:+.2g} from {trial}: results are bit for bit equal "
        "only with the same code and versions on the same kind of processor."
    )


def show_next(
    console: Console,
    outcome: Outcome,
    registered: Registered | None,
    names: Path | None,
    tracking_uri: str | None,
) -> None:
    """Print the registered version and the commands to run next.

    Args:
        names: the value of --names.
        tracking_uri: the value of --tracking-uri; a password in it is printed as ***.
    """
    if registered is not None:
        version = f"version {registered.version} of {registered.name}, {registered.alias}"
        say(console, f"Registered as {version}: {registered.reason}.")

    words = ["--names", str(names)] if names else []
    store = ["--tracking-uri", without_password(tracking_uri)] if tracking_uri else []
    model_class = class_of(outcome.retraining.selected.model)
    model = [] if model_class is None else ["--model", source_of(model_class)]
    generate = [str(outcome.checkpoint), *model, "--n", "20", *words]
    print_next(
        console,
        ("generate names", "experiments/generate.py", generate),
        ("see the runs in the MLflow UI", "studies/ui.py", [EXPERIMENT, *store]),
    )
    if registered is not None:
        command = serve_command(registered, tracking_uri)
        console.print(f"  {command}  # serve it", soft_wrap=True, markup=False)


def serve_command(registered: Registered, tracking_uri: str | None) -> str:
    """Return the shell command that serves the registered model on this machine."""
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    store = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))}"
    command = f"{store} mlflow models serve -m {registered.uri}"

    # mlflow finds its server on the PATH, so the folder of this interpreter must come first.
    found = shutil.which("mlflow")
    folder = Path(sys.executable).parent
    if not found or Path(found).parent != folder:
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        command = f'PATH={shlex.quote(str(shown))}:"$PATH" {command}'
    return f"{command} --env-manager local --host 127.0.0.1 --port {PORT}"
