"""Measures the cost of a trial without its training: coordinator, Optuna, MLflow and files.

The engine returns ten made-up evaluations a trial and trains nothing, so all time is overhead.
It has no peer. For each number of trials, a new study runs in the default stores. The columns
exclude the fixed cost of a study (imports, stores, pictures), which is measured with a study of
one trial. The memory is the highest of the process so far.

    python tests/benchmarks/bench_overhead.py [--trials 10 100 1000 10000] [--picture PNG]
"""

from __future__ import annotations

import argparse
import os
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, EvalPoint, Outcome, TrainResult
from makemore.model import MLP
from studies import mlp
from studies.harness.cli.script import collect_seldom
from studies.harness.search import launch, opening, session
from studies.harness.search.loop import queue
from studies.harness.tracking.sending import thread


class NoEngine:
    """An engine that trains nothing; the loss depends on the config and the step."""

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        self.capacity = capacity
        self._vocab_size = len(corpus.vocab)
        self._slots: dict[int, tuple[Config, list[EvalPoint]]] = {}

    def admit(self, config: Config) -> int:
        slot = min(set(range(self.capacity)) - set(self._slots))
        self._slots[slot] = config, []
        return slot

    def advance(self) -> list[tuple[int, Outcome]]:
        return [(slot, self.evaluate(slot)) for slot in self._slots]

    def evaluate(self, slot: int) -> EvalPoint:
        """Make up the next evaluation of a slot, and add it to the history."""
        config, history = self._slots[slot]
        step = (len(history) + 1) * config.eval_interval
        loss = (
            2
            + abs(np.log10(config.lr) + 0.5)
            + 8 / config.n_hidden
            + 0.5 * config.max_steps / step / 10
        )
        history.append(EvalPoint(step, loss, loss, config.lr))
        return history[-1]

    def remove(self, slot: int) -> TrainResult:
        config, history = self._slots.pop(slot)
        model = MLP(config, self._vocab_size)
        return TrainResult(model, tuple(history), model.flat.numel(), 0.0)

    def discard(self, slot: int) -> None:
        del self._slots[slot]

    def close(self) -> None:
        self._slots.clear()


class Measured(NamedTuple):
    """The cost of one study.

    Attributes:
        wall: seconds.
        cpu: CPU seconds of all threads.
        ask: seconds in Optuna's ask.
        mlflow: seconds in MLflow's thread.
        memory: most bytes that the process has used so far.
        size: bytes in mlruns/.
    """

    wall: float
    cpu: float
    ask: float
    mlflow: float
    memory: int
    size: int


def measure(trials: int, folder: Path) -> Measured:
    """Run one study in a new folder."""
    folder.mkdir()
    os.chdir(folder)
    spent = {"ask": 0.0, "mlflow": 0.0}

    def timed(owner: Any, name: str, label: str) -> Callable[[], None]:
        inner = getattr(owner, name)

        def outer(self: Any) -> Any:
            begun = time.perf_counter()
            try:
                return inner(self)
            finally:
                spent[label] += time.perf_counter() - begun

        setattr(owner, name, outer)
        return lambda: setattr(owner, name, inner)

    restore = [
        timed(queue.TrialQueue, "next", "ask"),
        timed(thread.SendingThread, "_send_all", "mlflow"),
    ]
    collect_seldom()  # as `run_script` does
    begun = time.perf_counter()
    begun_cpu = time.process_time()
    args = mlp.Args(trials=trials, steps=5000, prune=False, repeats=0, json=False, device="cpu")
    launch.run_study(args, mlp.space, mlp.BASE, first=mlp.LECTURE)
    wall = time.perf_counter() - begun
    cpu = time.process_time() - begun_cpu
    for undo in restore:
        undo()
    size = sum(path.stat().st_size for path in Path("mlruns").rglob("*") if path.is_file())
    memory = 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Measured(wall, cpu, spent["ask"], spent["mlflow"], memory, size)


def train_nothing() -> None:
    """Let the studies of this process use `NoEngine`, and print no table at their end."""

    def make(
        device: str, corpus: Corpus, capacity: int, envelope: Envelope, model: object = None
    ) -> NoEngine:
        return NoEngine(corpus, capacity)

    opening.make_engine = make
    session.terminal.print_end = lambda *_: None


def main(args: argparse.Namespace) -> None:
    """Measure a study for each number of trials, and print the table."""
    train_nothing()
    costs: dict[int, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        measure(1, Path(folder) / "imports")
        one = measure(1, Path(folder) / "one")
        print(f"a study of one trial: {one.wall:.2f} s, {one.cpu:.2f} s of CPU time\n")
        print("Milliseconds of each trial after the first. MLflow has its own thread.\n")
        titles = "trials|s|ms|CPU ms|Optuna's ask|MLflow's thread|MB of memory|MB in mlruns/"
        print(f"| {titles.replace('|', ' | ')} |\n|{'---|' * 8}")
        for trials in args.trials:
            study = measure(trials, Path(folder) / str(trials))
            costs[trials] = [
                1000 * (all_trials - one_trial) / (trials - 1)
                for all_trials, one_trial in zip(study[:4], one[:4], strict=True)
            ]
            cells = [
                f"{trials}",
                f"{study.wall:.1f}",
                *(f"{ms:.1f}" for ms in costs[trials]),
                f"{study.memory / 1e6:.0f}",
                f"{study.size / 1e6:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        os.chdir(Path(__file__).parent)
    if args.picture:
        draw(costs, args.picture)


def draw(costs: dict[int, list[float]], path: Path) -> None:
    """Draw the cost of a trial over the number of trials of its study."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, ax = plt.subplots(figsize=(7, 4), layout="constrained")
    names = ("all: seconds of the study", "CPU time", "Optuna's ask", "MLflow's thread")
    for name, values in zip(names, zip(*costs.values(), strict=True), strict=True):
        ax.plot(list(costs), values, "o-", label=name)
    ax.set(
        xscale="log", xlabel="trials of the study", ylabel="milliseconds a trial", ylim=(0, None)
    )
    ax.set_title("Cost of a trial without its training")
    ax.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, nargs="+", default=[10, 100, 1000, 10_000])
    parser.add_argument("--picture", type=lambda path: Path(path).absolute(), help="to write")
    main(parser.parse_args())
