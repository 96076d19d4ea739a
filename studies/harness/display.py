"""What a study shows in the terminal: progress while it runs, the best trials and the next commands at its end."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from studies.harness.proposals import counts
from studies.harness.records import TrialRecord, dev_loss, ranked, was_stopped
from studies.harness.storage import without_password

if TYPE_CHECKING:
    from studies.harness.args import StudyArgs

LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal
PIPE_WIDTH = 400  # columns where there is no terminal, so that nothing is cut or wrapped


def make_console(*, stderr: bool = False) -> Console:
    """A console as wide as the terminal, or wide enough for every table where there is none."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence as it is: brackets in it are no markup, and a pipe gets it as one line."""
    console.print(sentence, style=style, markup=False, soft_wrap=True)


@contextmanager
def live(
    study: optuna.Study, total: int, max_steps: int, minutes: float | None = None
) -> Iterator[Callable[[TrialRecord], None]]:
    """Show progress on standard error while the block runs, of `minutes` at most; yields what takes each record."""
    console = make_console(stderr=True)
    show = _Tally(study, total, max_steps, minutes)
    if not console.is_terminal:
        yield lambda record: show.line(record, console)
        return
    columns = (
        TextColumn("[bold]{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[tally]}"),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(study.study_name, total=total, completed=show.done, tally="")

        def on_event(record: TrialRecord) -> None:
            show.add(record)
            progress.update(task, completed=show.done, tally=show.text())

        yield on_event


class _Tally:
    """Counts outcomes, so that no event has to read the storage."""

    def __init__(self, study: optuna.Study, total: int, max_steps: int, minutes: float | None) -> None:
        trials = study.get_trials(deepcopy=False)
        counted = [t for t in trials if counts(t)]
        self.counts = {state: sum(t.state.name == state for t in counted) for state in ("COMPLETE", "PRUNED", "FAIL")}
        self.best = min((dev_loss(t) or float("inf") for t in ranked(trials)), default=float("inf"))
        self.total, self.max_steps, self.minutes, self.steps = total, max_steps, minutes, 0
        self.repeated = 0
        self.begun = self.shown = time.monotonic()
        self.last_step: dict[int, int] = {}

    @property
    def done(self) -> int:
        return sum(self.counts.values())

    def add(self, record: TrialRecord) -> None:
        step = record.points[-1].step if record.points else 0
        self.steps += step - self.last_step.get(record.number, 0)
        self.last_step[record.number] = step
        if "repeat_of" in record.tags:
            self.repeated += record.state in self.counts
            return  # beyond the total, and its loss is another draw of a config that has its loss already
        if record.points:
            self.best = min(self.best, record.points[-1].dev_loss)
        if record.state in self.counts and "finishes" not in record.tags:
            self.counts[record.state] += 1

    def text(self) -> str:
        elapsed = max(1e-9, time.monotonic() - self.begun)
        pruned, failed = self.counts["PRUNED"], self.counts["FAIL"]
        best = f"best dev {self.best:.4f}" if self.best < float("inf") else "no dev loss yet"
        repeats = f", {self.repeated} repeats" if self.repeated else ""
        clock = f", {elapsed / 60:.1f} of {self.minutes:g} minutes" if self.minutes else ""
        return f"{pruned} pruned, {failed} failed{repeats}, {best}, {self.steps / elapsed:,.0f} steps/s{clock}"

    def line(self, record: TrialRecord, console: Console) -> None:
        self.add(record)
        last = self.done == self.total and record.state in self.counts and "repeat_of" not in record.tags
        if time.monotonic() - self.shown >= LINE_EVERY or last:
            self.shown = time.monotonic()
            say(console, f"{self.done}/{self.total} trials, {self.text()}")


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
        say(console, f"Best {len(best)} of {outcome['trials']} trials of study {args.study}:", "bold")
        console.print(trials_table(best, console.width))
    counts = f"{outcome['complete']} complete, {outcome['pruned']} pruned, {outcome['failed']} failed"
    say(console, f"{counts}; {outcome['wall_s']:.1f} s, of which {outcome['train_s']:.1f} s training in all slots.")
    if outcome["timed_out"] and outcome["trials"] < args.trials:
        after = f"{args.minutes:g} minutes were over after {outcome['trials']} trials"
        say(console, f"{after}; the same command goes on for as long again.")
    elif outcome["trials"] < args.trials:
        say(console, f"Stopped at {outcome['trials']} of {args.trials} trials; the same command goes on from here.")
    if best and was_stopped(best[0]):
        step, flags = best[0].user_attrs["summary"]["history"][-1][0], f"--trials {outcome['trials']} --finish-best"
        say(
            console,
            f"The best trial was pruned at step {step:,}; the same command with {flags} trains it to its end.",
        )
    if best:
        print_next(
            console,
            ("compare the trials in the MLflow UI", "studies/ui.py", [args.study, *store_flags(args, storage=False)]),
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


def print_next(console: Console, *steps: tuple[str, str, list[str]]) -> None:
    """Commands that can be pasted, each with what it is for."""
    console.print("\nNext:", style="bold")
    for purpose, script, arguments in steps:
        line = Text.assemble("  ", shell_command(script, arguments), (f"  # {purpose}", "dim"))
        console.print(line, soft_wrap=True)


def store_flags(args: Any, *, storage: bool = True) -> list[str]:
    """The flags that lead another script to the same stores; a password in them is shown as ***."""
    named = {"--storage": args.storage if storage else None, "--tracking-uri": args.tracking_uri}
    return [word for flag, value in named.items() if value for word in (flag, without_password(value))]


def shell_command(script: str, arguments: list[str]) -> str:
    """A command that runs a script of this project with this interpreter, as short as it can be from this folder."""
    python, root = Path(sys.executable), Path(__file__).parents[2]
    found = shutil.which("python")
    if found and Path(found).parent == python.parent:
        shown = "python"
    else:
        shown = str(python.relative_to(Path.cwd())) if python.is_relative_to(Path.cwd()) else str(python)
    return shlex.join([shown, os.path.relpath(root / script), *arguments])
