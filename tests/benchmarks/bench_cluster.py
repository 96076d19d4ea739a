"""Measures how many slots one coordinator keeps busy: engines that sleep instead of training.

Each trial takes a fixed time with ten evaluations. The first trial of each slot takes a random part
of it, so that the trials end evenly from the beginning. All stores are on. The figures are those of
the time after the first WARM_UP seconds of a study of one minute; a slot is busy while its trial
trains. "main thread" is its share of one core, and "behind" how many ended trials MLflow lacks at
the end.

    python -m tests.benchmarks.bench_cluster [--slots 10 100] [--seconds 5 60] [--picture PNG]
"""

from __future__ import annotations

import argparse
import functools
import math
import os
import random
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, Outcome, TrainResult
from makemore.engines.base import RETURN_AFTER
from studies import mlp
from studies.harness.cli import terminal
from studies.harness.search import launch, opening
from studies.harness.search.loop import coordinator
from tests.benchmarks.bench_overhead import NoEngine

WARM_UP = 20.0  # seconds
EVALUATIONS = 10


class Sleeping(NoEngine):
    """An engine whose evaluations come at fixed times.

    Args:
        seconds: of a trial.

    Attributes:
        begun: time.monotonic() of the first trial's start.
        trained: start and end of each training, the running ones included after `close`.
    """

    def __init__(self, corpus: Corpus, capacity: int, seconds: float) -> None:
        super().__init__(corpus, capacity)
        self._seconds = seconds
        self._random = random.Random(0)
        self._first = capacity  # trials that start in the middle
        self._times: dict[int, tuple[float, float]] = {}  # start and duration
        self.begun = 0.0
        self.trained: list[tuple[float, float]] = []

    def admit(self, config: Config) -> int:
        slot = super().admit(config)
        seconds = self._seconds * (self._random.random() if self._first > 0 else 1.0)
        self._first -= 1
        self._times[slot] = time.monotonic(), seconds
        self.begun = self.begun or time.monotonic()
        return slot

    def advance(self) -> list[tuple[int, Outcome]]:
        due = {}
        for slot, (started, seconds) in self._times.items():
            done = len(self._slots[slot][1])
            if done < EVALUATIONS:
                due[slot] = started + (done + 1) * seconds / EVALUATIONS
        now = time.monotonic()
        time.sleep(max(0.0, min([*due.values(), now + RETURN_AFTER]) - now))
        now = time.monotonic()
        return [(slot, self.evaluate(slot)) for slot, at in due.items() if at <= now]

    def remove(self, slot: int) -> TrainResult:
        self._note_end(slot)
        return super().remove(slot)

    def discard(self, slot: int) -> None:
        self._note_end(slot)
        super().discard(slot)

    def close(self) -> None:
        for slot in list(self._times):
            self._note_end(slot)
        super().close()

    def _note_end(self, slot: int) -> None:
        started, seconds = self._times.pop(slot)
        self.trained.append((started, min(time.monotonic(), started + seconds)))


class Measured(NamedTuple):
    """One study of a minute.

    Attributes:
        rate: trials that ended in a second.
        busy: share of the slots' time in which they trained.
        main: share of a core that the main thread used.
        behind: ended trials that MLflow did not have when the minute was over.
    """

    rate: float
    busy: float
    main: float
    behind: int


def measure(slots: int, seconds: float, folder: Path) -> Measured:
    """Run a study of a minute on sleeping slots, in a new folder."""
    folder.mkdir()
    os.chdir(folder)
    engines: list[Sleeping] = []

    def make(
        device: str, corpus: Corpus, capacity: int, envelope: Envelope, model: object = None
    ) -> Sleeping:
        engines.append(Sleeping(corpus, slots, seconds))
        return engines[-1]

    opening.make_engine = make
    spent = {"cpu": 0.0, "behind": 0, "end": 0.0}
    run = coordinator.Coordinator.run

    @functools.wraps(run)
    def timed(self: coordinator.Coordinator) -> None:
        cpu = time.thread_time()
        try:
            run(self)
        finally:
            spent["end"] = time.monotonic()
            spent["cpu"] = time.thread_time() - cpu
            spent["behind"] = max(0, self.tracker.unsent - len(engines[-1]._slots))

    coordinator.Coordinator.run = timed  # type: ignore[method-assign]
    try:
        args = mlp.Args(
            trials=10**6, minutes=1.0, prune=False, repeats=0, workers=slots, device="cpu"
        )
        launch.run_study(args, mlp.space, mlp.BASE, first=mlp.LECTURE)
    finally:
        coordinator.Coordinator.run = run  # type: ignore[method-assign]

    engine, end = engines[-1], spent["end"]
    begin = engine.begun + WARM_UP
    window = end - begin
    ended = sum(begin <= until < end - 0.5 for _, until in engine.trained)
    trained = sum(max(0.0, min(until, end) - max(since, begin)) for since, until in engine.trained)
    main_thread = spent["cpu"] / (end - engine.begun)
    return Measured(ended / window, trained / window / slots, main_thread, int(spent["behind"]))


def draw(results: dict[tuple[int, float], Measured], path: Path) -> None:
    """Draw trials per second against slots, with what endless speed would reach."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 4.2), layout="constrained")
    for n, seconds in enumerate(sorted({seconds for _, seconds in results})):
        points = sorted((slots, m.rate) for (slots, s), m in results.items() if s == seconds)
        slots = [slots for slots, _ in points]
        rates = [rate or math.nan for _, rate in points]  # no trial ended: no point
        ax.plot(slots, rates, "o-", color=f"C{n}", label=f"{seconds:g} s")
        ax.plot(slots, [count / seconds for count in slots], ":", color=f"C{n}")
    ax.set(xscale="log", yscale="log", xlabel="slots", ylabel="trials that end in a second")
    ax.legend(title="time of a trial\n(dotted: all slots busy)")
    figure.savefig(path, dpi=120)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slots", type=int, nargs="+", default=[10, 100, 1000])
    parser.add_argument("--seconds", type=float, nargs="+", default=[5.0, 60.0, 600.0])
    parser.add_argument("--picture", type=Path)
    args = parser.parse_args()
    picture = args.picture and args.picture.absolute()

    terminal.print_end = lambda *_: None
    results: dict[tuple[int, float], Measured] = {}
    print("| slots | time of a trial | trials/s | slots busy | main thread | behind |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for seconds in args.seconds:
            for slots in args.slots:
                got = measure(slots, seconds, Path(folder) / f"{slots}-{seconds:g}")
                results[slots, seconds] = got
                print(
                    f"| {slots:,} | {seconds:g} s | {got.rate:.1f} | {got.busy:.0%} "
                    f"| {got.main:.0%} | {got.behind} |",
                    flush=True,
                )
        os.chdir("/")
    if picture:
        draw(results, picture)


if __name__ == "__main__":
    main()
