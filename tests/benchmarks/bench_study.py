"""A whole study against the script that an engineer would write in an afternoon: the same trials, all stores on.

Both run as whole processes, ours first, so that the peer (plain_study.py) can train the very parameters that ours
proposed; ours starts from empty stores and a compiled kernel. Then ours once more under timers, to say where its time
goes.

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
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
STUDY = HERE.parents[1] / "studies" / "mlp.py"


def run(command: list[str], folder: Path) -> tuple[float, dict[str, Any]]:
    """Seconds of a whole process, and the JSON of its last line."""
    begun = time.perf_counter()
    done = subprocess.run([sys.executable, *command], cwd=folder, check=True, capture_output=True, text=True)
    return time.perf_counter() - begun, json.loads(done.stdout.splitlines()[-1])


def proposed(folder: Path) -> list[dict[str, Any]]:
    """The parameters of the study in a folder, in order."""
    from studies.harness.study import load_study

    return [trial.params for trial in load_study("mlp", str(folder / "mlruns/optuna/mlp.journal")).get_trials()]


def where_the_time_goes(trials: int, steps: int) -> dict[str, float]:
    """Seconds by activity of one study in this process; threads overlap, so they add up to more than the wall time."""
    from studies import mlp
    from studies.harness import coordinator, launch, proposals, tracking
    from studies.harness.spaces import LECTURE, five_parameters

    spent: dict[str, float] = defaultdict(float)

    def time_calls(owner: Any, name: str, label: str) -> None:
        inner: Callable[..., Any] = getattr(owner, name)

        def outer(*args: Any, **kwargs: Any) -> Any:
            begun = time.perf_counter()
            try:
                return inner(*args, **kwargs)
            finally:
                spent[label] += time.perf_counter() - begun

        setattr(owner, name, outer)

    time_calls(proposals.Proposals, "next", "Optuna: ask")
    time_calls(coordinator.Coordinator, "_handle", "Optuna: report and tell, with the trial's files")
    time_calls(coordinator.Coordinator, "_write_files", "of which the trial's files")
    time_calls(coordinator.Coordinator, "_advance", "coordinator idle, waiting for a slot")
    time_calls(tracking.Tracker, "_send_all", "MLflow (in its thread)")
    time_calls(launch, "_begin_tracking", "opening the stores")
    time_calls(launch, "_end_tracking", "pictures, and what MLflow still lacks at the end")
    args = mlp.Args(trials=trials, steps=steps, prune=False, repeats=0, study="timed", json=False)
    begun = time.perf_counter()
    launch.run_study(args, five_parameters, mlp.BASE, first=LECTURE)
    spent["wall"] = time.perf_counter() - begun
    return dict(spent)


def blas_kernel() -> str:
    import numpy  # noqa: F401
    from threadpoolctl import threadpool_info

    kernels = {pool["architecture"] for pool in threadpool_info() if pool.get("internal_api") == "openblas"}
    return ", ".join(sorted(kernels)) or "none"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--own-kernel", action="store_true", help="let OpenBLAS choose its kernel")
    args = parser.parse_args()
    if args.own_kernel:
        for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
            os.environ.pop(name, None)
    print(f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores, OpenBLAS pinned to "
          f"{os.environ.get('OPENBLAS_CORETYPE', 'nothing')} (kernel {blas_kernel()})")  # fmt: skip
    flags = ["--trials", str(args.trials), "--steps", str(args.steps)]
    ours_only = ["--no-prune", "--repeats", "0", "--json"]
    with tempfile.TemporaryDirectory() as folder:
        warm, one, two = (Path(folder) / name for name in ("warm", "ours", "plain"))
        for path in (warm, one, two):
            path.mkdir()
        run([str(STUDY), "--trials", "2", "--steps", "20", "--json"], warm)
        ours, result = run([str(STUDY), *flags, *ours_only], one)
        (two / "params.json").write_text(json.dumps(proposed(one)))
        plain, peer = run([str(HERE / "plain_study.py"), *flags, "--params", "params.json"], two)
        print(f"studies/mlp.py    {ours:7.1f} s, best dev {result['best_dev_loss']:.4f}")
        print(f"the plain script  {plain:7.1f} s, best dev {peer['best_dev_loss']:.4f}")
        print(f"ratio             {plain / ours:7.2f}")
        os.chdir(warm)
        spent = where_the_time_goes(args.trials, args.steps)
    wall = spent.pop("wall")
    print(f"\nwhere the time goes: {wall:.1f} s after the imports")
    for label, seconds in sorted(spent.items(), key=lambda item: -item[1]):
        print(f"  {seconds:7.2f} s  {seconds / wall:5.0%}  {label}")


if __name__ == "__main__":
    main()
