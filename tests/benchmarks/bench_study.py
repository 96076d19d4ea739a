"""Measures a whole study from its start to its last line, with all stores.

The peer is plain_study.py, the script that an engineer would write in an afternoon. Both run as
whole processes. Ours runs first, so that the peer can train the parameters that ours proposed.
Ours starts with empty stores and a compiled kernel. A second run of ours is timed by activity:
the rows of the main thread add up to its time from the imports to the last line, and those of
the slots are summed.

    python tests/benchmarks/bench_study.py [--trials 16] [--steps 5000] [--own-kernel]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from makemore.engines.cpu import slot
from studies.harness.search.loop import queue
from studies.harness.tracking.sending import thread, tracker

HERE = Path(__file__).resolve().parent
STUDY = HERE.parents[1] / "studies" / "mlp.py"


def run(command: list[str], folder: Path) -> tuple[float, dict[str, Any]]:
    """Run a whole process; returns its seconds and the JSON of its last line."""
    begun = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], cwd=folder, check=True, capture_output=True, text=True
    )
    return time.perf_counter() - begun, json.loads(done.stdout.splitlines()[-1])


def proposed(folder: Path) -> list[dict[str, Any]]:
    """Return the parameters of the trials of the study in a folder, in order."""
    from studies.harness.store.study import load_study

    return [
        trial.params
        for trial in load_study("mlp", str(folder / "mlruns/optuna/mlp.journal")).get_trials()
    ]


class Clock:
    """Seconds by activity. An inner activity of a thread does not count for the outer one."""

    def __init__(self) -> None:
        self.spent: dict[str, float] = defaultdict(float)
        # Seconds of the inner activities of each activity that runs, outermost first.
        self._inner = threading.local()

    @contextmanager
    def activity(self, label: str) -> Iterator[None]:
        inner = self._inner.__dict__.setdefault("seconds", [])
        inner.append(0.0)
        begun = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - begun
            self.spent[label] += seconds - inner.pop()
            if inner:
                inner[-1] += seconds

    def time_calls(self, owner: Any, name: str, label: str) -> None:
        call = getattr(owner, name)

        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.activity(label):
                return call(*args, **kwargs)

        setattr(owner, name, timed)


def time_one_study(trials: int, steps: int) -> None:
    """Run a study in this process, time its activities, and print two tables."""
    clock, begun = Clock(), time.perf_counter()
    with clock.activity("imports"):
        from studies import mlp
        from studies.harness.search import launch, session
        from studies.harness.search.loop import coordinator, trial_ends

    files = "a trial's samples, checkpoint and diagnostics"
    ours, theirs = coordinator.Coordinator, tracker.Tracker
    for owner, name, label in (
        (queue.TrialQueue, "next", "Optuna: ask"),
        (ours, "_handle", "Optuna: report and tell"),
        (trial_ends.TrialFiles, "write", files),
        (trial_ends, "diagnose", files),
        (ours, "_advance", "idle: waiting for the slots"),
        (session, "finish_study", "report and pictures"),
        (theirs, "wait_until_open", "idle: waiting for MLflow"),
        (theirs, "close", "idle: waiting for MLflow"),
        (slot.Slot, "train", "training"),
        (slot.Slot, "evaluate", "evaluation"),
        (session, "connect", "MLflow: import, and its database"),
        (session, "recover", "MLflow: what earlier launches left"),
        (thread.SendingThread, "_send_all", "MLflow: sending"),
    ):
        clock.time_calls(owner, name, label)
    args = mlp.Args(trials=trials, steps=steps, prune=False, repeats=0, study="timed", device="cpu")
    with clock.activity("corpus, Optuna's store, kernel, and the rest"):
        launch.run_study(args, mlp.space, mlp.BASE, first=mlp.LECTURE)
    wall, spent = time.perf_counter() - begun, clock.spent
    other_threads = (
        "training",
        "evaluation",
        "MLflow: import, and",
        "MLflow: what",
        "MLflow: sending",
    )
    for title, there in (
        (f"the main thread, {wall:.1f} s", False),
        ("the slots and MLflow's thread", True),
    ):
        print(f"\nwhere the time goes: {title}\n")
        print("| | s | share |")
        print("|---|---|---|")
        for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
            if label.startswith(other_threads) == there:
                print(f"| {label} | {seconds:.2f} | {seconds / wall:.0%} |")


def blas_kernel() -> str:
    """Return the name of the kernel that OpenBLAS selected."""
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    kernels = {
        pool["architecture"] for pool in threadpool_info() if pool.get("internal_api") == "openblas"
    }
    return ", ".join(sorted(kernels)) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--own-kernel", action="store_true", help="let OpenBLAS choose its kernel")
    parser.add_argument("--timed", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.timed:
        return time_one_study(args.trials, args.steps)
    if args.own_kernel:
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            os.environ.pop(name, None)
    processor = platform.processor() or platform.machine()
    pinned = os.environ.get("OPENBLAS_CORETYPE", "nothing")
    blas = f"OpenBLAS pinned to {pinned} (kernel {blas_kernel()})"
    print(f"{processor}, {os.cpu_count()} cores, {blas}")
    flags = ["--trials", str(args.trials), "--steps", str(args.steps)]
    ours_only = ["--no-prune", "--repeats", "0", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        warm, one, two, three = (Path(folder) / name for name in ("warm", "ours", "plain", "timed"))
        for path in (warm, one, two, three):
            path.mkdir()
        run([str(STUDY), "--trials", "2", "--steps", "20", "--json"], warm)
        ours, result = run([str(STUDY), *flags, *ours_only], one)
        (two / "params.json").write_text(json.dumps(proposed(one)))
        plain, peer = run([str(HERE / "plain_study.py"), *flags, "--params", "params.json"], two)
        print(f"studies/mlp.py    {ours:7.1f} s, best dev {result['best_dev_loss']:.4f}")
        print(f"the plain script  {plain:7.1f} s, best dev {peer['best_dev_loss']:.4f}")
        print(f"ratio             {plain / ours:7.2f}")
        timed = [sys.executable, str(HERE / "bench_study.py"), *flags, "--timed"]
        done = subprocess.run(timed, cwd=three, check=True, capture_output=True, text=True)
        print(done.stdout[done.stdout.index("\nwhere the time goes") :])


if __name__ == "__main__":
    main()
