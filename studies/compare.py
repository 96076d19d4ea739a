"""The trials of a study as a table, lowest dev loss first; of several studies, what each reached and how they differ.

In Python the same table is a pandas DataFrame: trials_frame(load_study("mlp", None)).
"""

from __future__ import annotations

import json
import statistics
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import pandas as pd
from cyclopts import Parameter
from rich import box
from rich.table import Table

from makemore.cli import SWITCH
from makemore.errors import UserError, writing
from studies.harness.cli.commands import print_next, store_flags
from studies.harness.cli.script import run_script
from studies.harness.cli.terminal import make_console, say, trials_table
from studies.harness.report.compare import compare_studies, to_markdown
from studies.harness.report.results import trials_frame
from studies.harness.store.study import load_study


@dataclass
class Args:
    """Show the trials of a study, lowest dev loss first; or several studies side by side."""

    studies: Annotated[tuple[str, ...], Parameter(negative=())] = ()
    """Name of the study, or of several."""
    _: KW_ONLY
    top: int = 20
    """How many trials are shown; --csv writes all."""
    csv: Path | None = None
    """File for the whole table, with every column."""
    markdown: Annotated[bool, SWITCH] = False
    """Print the table as Markdown."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI, for the next commands that are shown."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Print the table, and write it where asked to. Returns the exit code."""
    if args.top < 1:
        raise UserError(f"--top must be at least 1, but got {args.top}.")
    if not args.studies:
        raise UserError("name a study, or several to compare them with each other.")
    return show_trials(args, args.studies[0]) if len(args.studies) == 1 else show_studies(args)


def show_studies(args: Args) -> int:
    """Several studies side by side."""
    studies = [load_study(name, args.storage) for name in args.studies]
    frame = compare_studies(studies)
    if args.csv is not None:
        _write_csv(frame.rename_axis("measure").reset_index(), args.csv)
    console = make_console(stderr=args.json)
    if args.markdown:
        console.print(to_markdown(frame, "measure"), markup=False, highlight=False, soft_wrap=True)
    else:
        table = Table("", *frame.columns, box=box.SIMPLE_HEAD)
        for index, row in zip(frame.index, frame.to_numpy(), strict=True):
            table.add_row(str(index), *row)
        console.print(table)
    if args.json:
        print(json.dumps({"studies": frame.to_dict()}))
    return 0


def show_trials(args: Args, name: str) -> int:
    """The trials of one study."""
    study = load_study(name, args.storage)
    frame, trials = trials_frame(study), study.get_trials(deepcopy=False)
    # Trials that another one replaced (a retry after a failure) and seed repeats stand in the CSV only.
    rows = frame.loc[
        [not {"replaced", "repeat_of"} & trials[number].user_attrs.keys() for number in frame.trial]
    ]
    top, repeats = rows[: args.top], seed_repeats(frame)
    if args.csv is not None:
        _write_csv(frame, args.csv)
    console = make_console(stderr=args.json)
    if len(top):
        say(
            console,
            f"{len(top)} of {len(rows)} trials of study {name}, lowest dev loss first:",
            "bold",
        )
        if args.markdown:
            table = (
                top.drop(columns=["started", "ended"])
                .round(4)
                .astype(object)
                .where(top.notna(), "")
            )
            print(to_markdown(table.set_index("trial"), "trial"), file=console.file)
        else:
            console.print(trials_table([trials[number] for number in top.trial], console.width))
    words = rows.state.str.lower().replace("fail", "failed")
    states = {str(state): int(n) for state, n in words.value_counts().items()}
    say(
        console,
        ", ".join(f"{n} {state}" for state, n in states.items())
        or f"Study {name} has no trials yet.",
    )
    for row in repeats:
        measured = f"{row['mean']:.4f} ± {row['sd']:.4f} (mean ± sd)"
        say(console, f"Trial {row['trial']} with {row['seeds']} further seeds: dev loss {measured}")
    if args.csv is not None:
        say(console, f"All {len(frame)} trials with every column: {args.csv}")
    if rows.dev_loss.notna().any():
        print_next(
            console,
            (
                "compare them in the MLflow UI",
                "studies/ui.py",
                [name, *store_flags(args, storage=False)],
            ),
            ("export the best config", "experiments/export.py", [name, *store_flags(args)]),
        )
    if args.json:
        records = top.astype(object).where(top.notna(), None).to_dict("records")
        print(json.dumps({"study": name, "states": states, "trials": records, "repeats": repeats}))
    return 0


def seed_repeats(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Each trial that was repeated, lowest dev loss first: how many further seeds, mean and sd of their dev loss.

    The trial's own loss is left out: it is what the trial was chosen by, and flatters it.
    """
    found = []
    for trial in frame.trial:
        losses = list(
            frame.dev_loss[(frame.repeat_of == trial).fillna(False) & frame.dev_loss.notna()]
        )
        if len(losses) > 1:
            row = {"trial": int(trial), "seeds": len(losses)}
            found.append({**row, "mean": statistics.fmean(losses), "sd": statistics.stdev(losses)})
    return found


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with writing(path, "--csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)


if __name__ == "__main__":
    run_script(Args, main)
