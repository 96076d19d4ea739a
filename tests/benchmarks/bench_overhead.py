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
from pathlib import Path

import numpy as np

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Envelope, EvalPoint, Outcome, TrainResult
from makemore.model import MLP
from studies import mlp
from studies.harness import launch, proposals
from studies.harness.spaces import LECTURE, five_parameters


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
            loss = 2 + abs(np.log10(config.lr) + 0.5) + 8 / config.n_hidden + 0.5 * config.max_steps / step / 10
            history.append(EvalPoint(step, loss, loss, config.lr))
            outcomes.append((slot, history[-1]))
        return outcomes

    def remove(self, slot: int) -> TrainResult:
        config, history = self._slots.pop(slot)
        model = MLP(config, self._vocab_size)
        return TrainResult(model, tuple(history), model.flat.numel(), 0.0)

    def close(self) -> None:
        self._slots.clear()


def measure(trials: int, folder: Path) -> tuple[float, float, int]:
    """Run one study; seconds in all, seconds in ask, and bytes in mlruns/."""
    folder.mkdir()
    os.chdir(folder)
    asked, ask = [0.0], proposals.Proposals.next

    def timed(self: proposals.Proposals) -> proposals.Active | None:
        begun = time.perf_counter()
        try:
            return ask(self)
        finally:
            asked[0] += time.perf_counter() - begun

    proposals.Proposals.next = timed  # type: ignore[method-assign]
    begun = time.perf_counter()
    args = mlp.Args(trials=trials, steps=5000, prune=False, repeats=0, json=False, device="cpu")
    launch.run_study(args, five_parameters, mlp.BASE, first=LECTURE)
    wall = time.perf_counter() - begun
    proposals.Proposals.next = ask  # type: ignore[method-assign]
    return wall, asked[0], sum(path.stat().st_size for path in Path("mlruns").rglob("*") if path.is_file())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000])
    args = parser.parse_args()

    def make(device: str, corpus: Corpus, capacity: int, envelope: Envelope) -> NoEngine:
        return NoEngine(corpus, capacity)

    launch.make_engine = make
    launch.display.print_end = lambda *_: None
    with tempfile.TemporaryDirectory() as folder:
        measure(1, Path(folder) / "imports")
        fixed = measure(1, Path(folder) / "one")[0]
        print(f"a study of one trial: {fixed:.2f} s\n")
        print("| trials | s | ms a trial beyond the first | of which Optuna's ask | all else | MB in mlruns/ |")
        print("|---|---|---|---|---|---|")
        for trials in args.trials:
            wall, asked, size = measure(trials, Path(folder) / str(trials))
            each, ask = 1000 * (wall - fixed) / (trials - 1), 1000 * asked / trials
            row = f"| {trials} | {wall:.1f} | {each:.1f} | {ask:.1f} | {each - ask:.1f} | {size / 1e6:.0f} |"
            print(row, flush=True)
        os.chdir(Path(__file__).parent)


if __name__ == "__main__":
    main()
