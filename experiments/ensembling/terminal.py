"""Print an ensemble on the terminal: a table in the form of Bengio's, and sentences about it."""

from __future__ import annotations

import math
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.ensembling.results import Measured, Selected
from experiments.registry import Registered
from experiments.retraining.terminal import serve_command
from makemore.selection import ENSEMBLE, ENSEMBLE_MIXED, MIXED
from studies.harness.cli.commands import print_next
from studies.harness.cli.terminal import say
from studies.harness.store.text import counted


def show(console: Console, selected: Selected, test: Measured) -> None:
    """Print the members, the table and the comparisons."""
    members = selected.members
    total = sum(n for _, n in members)
    n = len(selected.candidates)
    picked = f"{counted(total, 'pick')} with replacement"
    say(console, f"{len(members)} of {n} kept models, {picked}:", "bold")
    for candidate, picks in members:
        say(console, f"  {picks} x {candidate.name}, dev loss {candidate.dev_loss:.4f}")

    say(console, "\nLosses in nats per character:", "bold")
    console.print(loss_table(selected, test))
    for sentence in sentences(selected, test):
        say(console, sentence)


def loss_table(selected: Selected, test: Measured) -> Table:
    """Return a row for each combination (Bengio et al. 2003, tables 1 and 2)."""
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for heading in ("counts weight", "dev, cross-fitted", "test", "test perplexity"):
        table.add_column(heading, justify="right")
    weights = {
        MIXED: selected.choice.best_counts_weight,
        ENSEMBLE_MIXED: selected.choice.counts_weight,
    }
    for name, loss in selected.dev.losses.items():
        weight = f"{weights[name]:.2f}" if name in weights else ""
        on_test = test.losses[name]
        cells = [f"{loss:.4f}", f"{on_test:.4f}", f"{math.exp(on_test):.3f}"]
        table.add_row(name, weight, *cells)
    return table


def sentences(selected: Selected, test: Measured) -> list[str]:
    """Return the sentences below the table."""
    lowest = selected.same_words[ENSEMBLE_MIXED if selected.counts else ENSEMBLE]
    lines = []
    if len(selected.members) == 1:
        lines.append("No mean of several models is better than this one, so it is alone.")
    lines += [
        "Dev losses are cross-fitted: members and weights are chosen on one half of the dev words "
        "and measured on the other half, then the reverse.",
        "The saved ensemble is chosen on all dev words. On these words its loss is "
        f"{lowest:.4f}, which is too low, because it was chosen on them.",
        f"The net alone is {selected.best.name} on test, and on dev the best model of each half.",
    ]
    for split, measured in (("Dev", selected.dev), ("Test", test)):
        for difference in measured.differences:
            lines.append(f"{split} loss: {difference.sentence}; 95% interval, paired by word.")
    return [
        *lines,
        "This run read the test split once, after the selection; nothing was chosen by it.",
    ]


def show_next(
    console: Console,
    path: Path,
    registered: Registered | None,
    flags: list[str],
    tracking_uri: str | None,
) -> None:
    """Print where the ensemble is, and the commands to run next.

    Args:
        flags: --names of the words, if they are not the embedded ones.
        tracking_uri: the value of --tracking-uri; a password in it is printed as ***.
    """
    say(console, f"Saved as {path} ({path.stat().st_size / 1e6:.1f} MB)")
    if registered is not None:
        version = f"version {registered.version} of {registered.name}, {registered.alias}"
        say(console, f"Registered as {version}: {registered.reason}.")
    generate = [str(path), "--n", "20", *flags]
    print_next(console, ("generate names", "experiments/generate.py", generate))
    if registered is not None:
        command = serve_command(registered, tracking_uri)
        console.print(f"  {command}  # serve it", soft_wrap=True, markup=False)
