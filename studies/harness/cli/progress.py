"""Progress of a study in the terminal."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

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

from studies.harness.store.trials import TrialRecord, counts, dev_loss, ranked

if TYPE_CHECKING:
    pass

from studies.harness.cli.terminal import make_console, say

LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal


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

    def __init__(
        self, study: optuna.Study, total: int, max_steps: int, minutes: float | None
    ) -> None:
        trials = study.get_trials(deepcopy=False)
        counted = [t for t in trials if counts(t)]
        self.counts = {
            state: sum(t.state.name == state for t in counted)
            for state in ("COMPLETE", "PRUNED", "FAIL")
        }
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
        last = (
            self.done == self.total
            and record.state in self.counts
            and "repeat_of" not in record.tags
        )
        if time.monotonic() - self.shown >= LINE_EVERY or last:
            self.shown = time.monotonic()
            say(console, f"{self.done}/{self.total} trials, {self.text()}")
