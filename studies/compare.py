"""Show the trials of a study, the winner first, or compare several studies.

In Python, `trials_frame(load_study("mlp", None))` returns the same table as a pandas DataFrame.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError, check_output, writing
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    import pandas as pd


@dataclass
class Args:
    """Show the trials of a study, the winner first, or compare several studies."""

    studies: Annotated[tuple[str, ...], Parameter(negative=())]
    """Name of the study, or names of the studies to compare."""
    _: KW_ONLY
    top: int = 20
    """Number of trials to show; --csv writes all."""
    csv: Path | None = None
    """File for the whole table, with all columns. Default: not written."""
    markdown: Annotated[bool, SWITCH] = False
    """Print the table as Markdown."""
    storage: str | None = None
    """Optuna URL or journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: str | None = None
    """MLflow tracking URI for the commands printed at the end."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Print the table, and write the CSV file. Returns the exit code."""
    if args.top < 1:
        raise UserError(f"--top must be at least 1, but got {args.top}.")
    if args.csv is not None:
        check_output(args.csv, "--csv")
    if len(args.studies) == 1:
        return _show_trials(args, args.studies[0])
    return _show_studies(args)


def _show_trials(args: Args, name: str) -> int:
    from studies.harness.cli.commands import print_next, store_flags
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.report import compare
    from studies.harness.report.results import trials_frame
    from studies.harness.store.study import load_study
    from studies.harness.store.text import counted
    from studies.harness.store.winner.follow_ups import summarize
    from studies.harness.store.winner.winner import find_winner

    study = load_study(name, args.storage)
    frame = trials_frame(study)
    winner = find_winner(study.get_trials(deepcopy=False))
    rows = compare.searched_trials(study, frame)
    states = compare.count_states(rows)
    if args.csv is not None:
        _write_csv(frame, args.csv)

    console = make_console(stderr=args.json)
    compare.print_trials(console, study, rows, args.top, markdown=args.markdown)
    compare.print_summary(console, study, states, winner)
    if args.csv is not None:
        say(
            console,
            f"{counted(len(frame), 'trial')}, with seed repeats and all columns: {args.csv}",
        )
    if rows.dev_loss.notna().any():
        ui_flags = [name, *store_flags(args, storage=False)]
        print_next(
            console,
            ("compare the trials in the MLflow UI", "studies/ui.py", ui_flags),
            ("export the winner", "experiments/export.py", [name, *store_flags(args)]),
        )
    if args.json:
        top = rows[: args.top]
        trials = top.astype(object).where(top.notna(), None).to_dict("records")
        outcome = {"study": name, **summarize(study.get_trials(deepcopy=False))}
        print(json.dumps({**outcome, "states": states, "trials": trials}))
    return 0


def _show_studies(args: Args) -> int:
    from studies.harness.cli.terminal import make_console
    from studies.harness.report.compare import compare_studies, print_studies
    from studies.harness.store.study import load_study

    frame = compare_studies([load_study(name, args.storage) for name in args.studies])
    if args.csv is not None:
        _write_csv(frame.rename_axis("measure").reset_index(), args.csv)
    print_studies(make_console(stderr=args.json), frame, markdown=args.markdown)
    if args.json:
        print(json.dumps({"studies": frame.to_dict()}))
    return 0


def _write_csv(frame: pd.DataFrame, path: Path) -> None:
    with writing(path, "--csv"):
        path.parent.mkdir(parents=True, exist_ok=True)
        frame.to_csv(path, index=False)


if __name__ == "__main__":
    run_script(Args, main)
