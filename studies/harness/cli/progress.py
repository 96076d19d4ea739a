"""Progress of a study: a bar in the terminal or a notebook, or lines in a file or a pipe."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import optuna
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from studies.harness.cli.terminal import make_console, say
from studies.harness.store.text import counted
from studies.harness.store.trials import TrialRecord, counts, dev_loss, ranked
from studies.harness.store.winner.race import count_open_repeats

LINE_EVERY = 5.0  # seconds between two progress lines
CELL_EVERY = 0.5  # seconds between two changes of a notebook's cell
ENDED = ("COMPLETE", "PRUNED", "FAIL")  # states of an ended trial


@contextmanager
def live(
    study: optuna.Study, total: int, max_steps: int, minutes: float | None = None
) -> Iterator[Callable[[TrialRecord], None]]:
    """Show progress on standard error while the block runs.

    Args:
        total: total trials of the study, earlier launches included.
        max_steps: optimizer steps of a trial.
        minutes: time limit of this launch, or None.

    Yields:
        A function to call with a trial's record after each of its evaluations and at its end.
    """
    console = make_console(stderr=True)
    tally = _Tally(study, total, max_steps, minutes)
    show = _show_bar if console.is_terminal else _show_lines
    if console.is_jupyter:
        show = _show_cell
    with show(console, tally) as on_event:
        yield on_event


@contextmanager
def _show_lines(console: Console, tally: _Tally) -> Iterator[Callable[[TrialRecord], None]]:
    """Print a line every few seconds, and a last one with the final counts."""
    shown = time.monotonic()
    is_new = False

    def show() -> None:
        nonlocal shown, is_new
        shown, is_new = time.monotonic(), False
        say(console, f"{tally.done}/{counted(tally.total, 'trial')}, {tally.text()}")

    def on_event(record: TrialRecord) -> None:
        nonlocal is_new
        tally.add(record)
        is_new = True
        if time.monotonic() - shown >= LINE_EVERY:
            show()

    try:
        yield on_event
    finally:
        if is_new:
            show()


@contextmanager
def _show_cell(console: Console, tally: _Tally) -> Iterator[Callable[[TrialRecord], None]]:
    """Show one bar below a notebook's cell, and change it in place.

    Rich's own bar needs a widget library, and adds an output at each change without it.
    """
    from IPython.display import display

    def bar(text: str) -> dict[str, str]:
        line = f"{tally.done}/{counted(tally.total, 'trial')}, {text}"
        progress = f'<progress value="{tally.done}" max="{tally.total}"></progress>'
        return {"text/plain": line, "text/html": f"{progress} {line}"}

    shown = time.monotonic()
    cell = display(bar(tally.text()), raw=True, display_id=True)

    def on_event(record: TrialRecord) -> None:
        nonlocal shown
        tally.add(record)
        if time.monotonic() - shown >= CELL_EVERY:
            shown = time.monotonic()
            cell.update(bar(tally.text()), raw=True)

    try:
        yield on_event
    finally:
        cell.update(bar(tally.counted()), raw=True)


@contextmanager
def _show_bar(console: Console, tally: _Tally) -> Iterator[Callable[[TrialRecord], None]]:
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
        name = tally.study.study_name
        task = progress.add_task(name, total=tally.total, completed=tally.done, tally="")

        def on_event(record: TrialRecord) -> None:
            tally.add(record)
            progress.update(task, completed=tally.done, tally=tally.text())

        yield on_event


class _Tally:
    """Counts outcomes as they come, so that most events do not read the storage."""

    def __init__(
        self, study: optuna.Study, total: int, max_steps: int, minutes: float | None
    ) -> None:
        self.study = study
        self.total = total
        self.max_steps = max_steps
        self.minutes = minutes

        trials = study.get_trials(deepcopy=False)
        states = [t.state.name for t in trials if counts(t)]
        self.counts = {state: states.count(state) for state in ENDED}
        self.best = min((dev_loss(t) or float("inf") for t in ranked(trials)), default=float("inf"))
        self.lowest = float("inf")  # dev loss of all trials, also of those that still train
        self.repeated = 0  # seed repeats that ended in this launch
        self.open_repeats = 0  # that wait or train now; each round of the race adds some
        self.steps = 0
        self.begun = time.monotonic()
        self.last_step: dict[int, int] = {}  # by trial number

    @property
    def done(self) -> int:
        """Number of ended trials of the study, follow-up trials excluded."""
        return sum(self.counts.values())

    def add(self, record: TrialRecord) -> None:
        """Count the new steps and the new state of a record."""
        step = record.points[-1].step if record.points else 0
        self.steps += step - self.last_step.get(record.number, 0)
        self.last_step[record.number] = step
        if "repeat_of" in record.tags:
            self._add_repeat(record)
            return
        if record.best is not None:
            self.lowest = min(self.lowest, record.best.dev_loss)
            # The end of a study shows ended trials only; a trial that still trains may be requeued.
            if record.state in ("COMPLETE", "PRUNED"):
                self.best = min(self.best, record.best.dev_loss)
        if record.state in ENDED and "finishes" not in record.tags:
            self.counts[record.state] += 1

    def _add_repeat(self, record: TrialRecord) -> None:
        """Count a seed repeat: not towards the total, and its dev loss is not a new best one."""
        has_ended = record.state in ("COMPLETE", "PRUNED")
        self.repeated += has_ended
        if has_ended or not self.open_repeats:
            self.open_repeats = count_open_repeats(self.study.get_trials(deepcopy=False))

    def text(self) -> str:
        """Return the counts, the lowest dev loss and the speed."""
        elapsed = max(1e-9, time.monotonic() - self.begun)
        parts = [self.counted(), f"{self.steps / elapsed:,.0f} steps/s"]
        if self.minutes:
            parts.append(f"{elapsed / 60:.1f} of {self.minutes:g} minutes")
        return ", ".join(parts)

    def counted(self) -> str:
        """Return the counts and the lowest dev loss."""
        parts = [f"{self.counts['PRUNED']} pruned", f"{self.counts['FAIL']} failed"]
        if n_repeats := self.repeated + self.open_repeats:
            parts.append(f"{self.repeated} of {n_repeats} repeats")
        return ", ".join([*parts, self._best()])

    def _best(self) -> str:
        """Return the lowest dev loss of the ended trials, or else of those that still train."""
        if self.best < float("inf"):
            return f"best dev {self.best:.4f}"
        if self.lowest < float("inf"):
            return f"dev {self.lowest:.4f} in a running trial"
        return "no dev loss yet"
