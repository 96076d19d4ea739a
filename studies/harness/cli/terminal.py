"""What a study shows in the terminal: progress while it runs, the best trials and the next commands at its end."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.harness.cli.commands import print_next, shell_command, store_flags
from studies.harness.store.trials import dev_loss, ranked, was_pruned_early

if TYPE_CHECKING:
    from studies.harness.cli.args import StudyArgs

PIPE_WIDTH = 400  # columns where there is no terminal, so that nothing is cut or wrapped


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for every table where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence as it is: brackets in it are no markup, and a pipe gets it as one line."""
    console.print(sentence, style=style, markup=False, soft_wrap=True)


def trials_table(trials: list[FrozenTrial], width: int) -> Table:
    """A table of trials with their searched parameters, in the order given; closer set where `width` is small."""
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    rows = []
    for trial in trials:
        summary = trial.user_attrs.get("summary", {})
        losses = [_loss(dev_loss(trial)), _loss(summary.get("train_loss"))]
        params = [_cell(trial.params.get(name)) for name in names]
        sizes = [_cell(summary.get("best_step")), _cell(summary.get("metrics", {}).get("n_params"))]
        rows.append([str(trial.number), *losses, *params, *sizes, _state(trial)])
    headings = ["trial", "dev_loss", "train_loss", *names, "best_step", "n_params", "state"]
    natural = sum(max(map(len, cells)) + 2 for cells in zip(headings, *rows, strict=True))
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1 if natural <= width else 0, 0, 0)
    for heading in headings:
        shown = heading if natural <= width else heading.replace("_", "_\n")
        table.add_column(shown, justify="left" if heading == "state" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _state(trial: FrozenTrial) -> str:
    """The state, with its reason where that says more."""
    attrs = trial.user_attrs
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    reason = attrs.get("summary", {}).get("reason") or attrs.get("replaced", "")
    mark = f" (repeat of {attrs['repeat_of']})" if "repeat_of" in attrs else ""
    mark = f" (finishes {attrs['finishes']})" if "finishes" in attrs else mark
    return f"{state}{mark}" if reason in ("", "finished", state) else f"{state}{mark}: {reason}"


def print_end(args: StudyArgs, study: optuna.Study, outcome: dict[str, Any]) -> None:
    """The best trials, the counts and the next commands; on standard error with --json, so that stdout ends on JSON."""
    console = make_console(stderr=args.json)
    best = ranked(study.get_trials(deepcopy=False))[:5]
    if best:
        say(
            console,
            f"Best {len(best)} of {outcome['trials']} trials of study {args.study}:",
            "bold",
        )
        console.print(trials_table(best, console.width))
    counts = (
        f"{outcome['complete']} complete, {outcome['pruned']} pruned, {outcome['failed']} failed"
    )
    say(
        console,
        f"{counts}; {outcome['wall_s']:.1f} s, of which {outcome['train_s']:.1f} s training in all slots.",
    )
    if outcome["timed_out"] and outcome["trials"] < args.trials:
        after = f"{args.minutes:g} minutes were over after {outcome['trials']} trials"
        say(console, f"{after}; the same command goes on for as long again.")
    elif outcome["trials"] < args.trials:
        say(
            console,
            f"Stopped at {outcome['trials']} of {args.trials} trials; the same command goes on from here.",
        )
    if best and was_pruned_early(best[0]):
        step, flags = (
            best[0].user_attrs["summary"]["history"][-1][0],
            f"--trials {outcome['trials']} --finish-best",
        )
        say(
            console,
            f"The best trial was pruned at step {step:,}; the same command with {flags} trains it to its end.",
        )
    if best:
        print_next(
            console,
            (
                "compare the trials in the MLflow UI",
                "studies/ui.py",
                [args.study, *store_flags(args, storage=False)],
            ),
            ("export the best config", "experiments/export.py", [args.study, *store_flags(args)]),
        )


def print_not_sent(args: StudyArgs, left: int, error: str) -> None:
    """Say what MLflow does not have, and how to send it."""
    command = shell_command("studies/doctor.py", [args.study, *store_flags(args), "--repair"])
    print(
        f"MLflow does not have {left} runs of this study; they wait in mlruns/outbox ({error or 'no answer'}).\n"
        f"Send them when it is back: {command}",
        file=sys.stderr,
    )
