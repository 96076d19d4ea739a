"""What a trial costs beside its training: coordinator, Optuna, MLflow and files, with an engine that trains nothing.

The engine returns ten made-up evaluations a trial at once, so all time is overhead. For each number of trials a fresh
study runs on the embedded stores, whose making, with imports and pictures, costs what a study of one trial costs; the
columns a trial are without that.

    python tests/benchmarks/bench_overhead.py [--trials 100 1000]
"""

from __future__ import annotations

import argparse
import os
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
from studies.harness.search import launch, queue, session
from studies.harness.tracking import tracker


class NoEngine:
    """Slots whose models stay as they were drawn, with a loss that depends on the parameters."""

    def __init__(self, corpus: Corpus, capacity: int) -> None:
        self.capacity, self._vocab_size = capacity, len(corpus.vocab)
        self._slots: dict[int, tuple[Config, list[EvalPoint]]] = {}

    def admit(self, config: Config) -> int:
        slot = min(set(range(self.capacity)) - set(self._slots))
        self._slots[slot] = config, []
        return slot

    def advance(self) -> list[tuple[int, Outcome]]:
        outcomes: list[tuple[int, Outcome]] = []
        for slot, (config, history) in self._slots.items():
            step = (len(history) + 1) * config.eval_interval
            loss = (
                2
                + abs(np.log10(config.lr) + 0.5)
                + 8 / config.n_hidden
                + 0.5 * config.max_steps / step / 10
            )
            history.append(EvalPoint(step, loss, loss, config.lr))
            outcomes.append((slot, history[-1]))
        return outcomes

    def remove(self, slot: int) -> TrainResult:
        config, history = self._slots.pop(slot)
        model = MLP(config, self._vocab_size)
        return TrainResult(model, tuple(history), model.flat.numel(), 0.0)

    def close(self) -> None:
        self._slots.clear()


class Measured(NamedTuple):
    """What one study took: seconds, of the processor (all threads), in ask, in MLflow's thread; bytes in mlruns/."""

    wall: float
    cpu: float
    ask: float
    mlflow: float
    size: int


def measure(trials: int, folder: Path) -> Measured:
    """Run one study in a folder of its own."""
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
        timed(tracker.Tracker, "_send_all", "mlflow"),
    ]
    begun, cpu = time.perf_counter(), time.process_time()
    args = mlp.Args(trials=trials, steps=5000, prune=False, repeats=0, json=False, device="cpu")
    launch.run_study(args, mlp.space, mlp.BASE, first=mlp.LECTURE)
    wall, cpu = time.perf_counter() - begun, time.process_time() - cpu
    for undo in restore:
        undo()
    size = sum(path.stat().st_size for path in Path("mlruns").rglob("*") if path.is_file())
    return Measured(wall, cpu, spent["ask"], spent["mlflow"], size)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    args = parser.parse_args()

    def make(device: str, corpus: Corpus, capacity: int, envelope: Envelope) -> NoEngine:
        return NoEngine(corpus, capacity)

    session.make_engine = make
    session.terminal.print_end = lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        measure(1, Path(folder) / "imports")
        one = measure(1, Path(folder) / "one")
        print(f"a study of one trial: {one.wall:.2f} s, {one.cpu:.2f} s of the processor\n")
        print(
            "Milliseconds a trial beyond the first; MLflow's thread runs beside the coordinator's.\n"
        )
        print(
            "| trials | s | ms | of the processor | Optuna's ask | MLflow's thread | MB in mlruns/ |"
        )
        print("|---|---|---|---|---|---|---|")
        for trials in args.trials:
            all_of_it = measure(trials, Path(folder) / str(trials))
            each = [
                1000 * (much - little) / (trials - 1)
                for much, little in zip(all_of_it[:4], one[:4], strict=True)
            ]
            cells = [
                f"{trials}",
                f"{all_of_it.wall:.1f}",
                *(f"{ms:.1f}" for ms in each),
                f"{all_of_it.size / 1e6:.0f}",
            ]
            print(f"| {' | '.join(cells)} |", flush=True)
        os.chdir(Path(__file__).parent)


if __name__ == "__main__":
    main()
