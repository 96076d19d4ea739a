"""What a retraining says on the terminal: the seeds, the baselines, the difference to a second config."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table

from experiments.logbook import Outcome
from experiments.seeds import TRAIN, Replica, Retraining
from studies.harness.cli.terminal import say

HEADINGS = {"train_loss": "train", "dev_loss": "dev", "test_loss": "test"}


def show_outcome(console: Console, outcome: Outcome) -> None:
    """Print the table and the sentences below it."""
    done, steps = outcome.done, outcome.done.replicas[0].config.max_steps
    kept = "the best weights" if done.on == TRAIN else "the last step's weights"
    size = f"{done.selected.result.n_params:,} parameters, {steps:,} steps"
    say(console, f"{done.name}: {size}; losses of {kept}, nats per character:", "bold")
    console.print(_table(outcome))
    for sentence in _sentences(outcome):
        say(console, sentence)


def _table(outcome: Outcome) -> Table:
    done, table = outcome.done, Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("")
    for heading in (
        "best_step",
        *(done.on if name == "train_loss" else HEADINGS[name] for name in done.losses),
    ):
        table.add_column(heading, justify="right")
    for name, replicas in outcome.sides:
        _add_side(table, name if outcome.rival else "", replicas, done.losses)
    for rung in outcome.rungs:
        known = (f"{rung.losses[name]:.4f}" if name in rung.losses else "" for name in done.losses)
        table.add_row(rung.name, "", *known)
    return table


def _add_side(table: Table, name: str, replicas: Sequence[Replica], losses: Sequence[str]) -> None:
    for replica in replicas:
        cells = (f"{replica.losses[loss]:.4f}" for loss in losses)
        table.add_row(
            f"{name} seed {replica.config.seed}".strip(), f"{replica.result.best.step:,}", *cells
        )
    if len(replicas) > 1:
        columns = [[replica.losses[loss] for replica in replicas] for loss in losses]
        cells = (
            f"{statistics.fmean(values):.4f} ± {statistics.stdev(values):.4f}" for values in columns
        )
        table.add_row(f"{name} mean ± sd".strip(), "", *cells, style="bold")
    table.add_section()


def _sentences(outcome: Outcome) -> list[str]:
    done, difference, said = outcome.done, outcome.difference, []
    if done.on != TRAIN:
        said.append(
            "Trained on train and dev together: the dev loss is no measure here, and no weights were chosen by it."
        )
        best = done.origin.get("best_step")
        if (
            isinstance(best, int)
            and best < done.config.max_steps
            and done.replicas[0].config.max_steps > best
        ):
            said.append(f"On train alone the best step was {best:,}; --steps stops earlier.")
    if difference is not None:
        over = "words and seeds" if difference.seeded else "words"
        said.append(f"{difference.sentence}, in test loss; 95% interval over {over}.")
        if not difference.seeded:
            said.append(
                "With one seed each, what the seed alone changes is not in that interval; give --seeds 5."
            )
    said.append("The test split was read once, after all training; nothing was chosen by it.")
    if done.again is not None:
        said.append(_reproduction(done.again, done.origin))
    said.append(f"{len(outcome.samples)} words it makes up: {', '.join(outcome.samples)}")
    chosen = f", the seed of {_chosen(done)}" if len(done.replicas) > 1 else ""
    return [*said, f"Saved as {outcome.checkpoint}{chosen}"]


def _chosen(done: Retraining) -> str:
    return f"{'median' if done.select == 'median' else 'lowest'} {HEADINGS[done.decides]} loss"


def _reproduction(again: float, origin: dict[str, Any]) -> str:
    trial = f"trial {origin.get('trial')} of study {origin.get('study')}"
    where, before = f"dev loss {again:.4f} at step {origin['best_step']:,}", origin["dev_loss"]
    if again == before:
        return f"The first seed has {where}, exactly as {trial}."
    why = "every digit is the same only on the same kind of processor, with the same versions"
    return f"The first seed has {where}, {again - before:+.2g} from {trial}: {why}."
