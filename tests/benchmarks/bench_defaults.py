"""Measures the default search with real studies: studies/mlp.py with and without its pruner.

Each study has its own folder and stores. The two take turns, so that both meet the same load.
Seconds count from the start of the first trial. "% busy" is the share of the whole script's time in
which the slots trained. With --confirm, each study then continues with seed repeats. "confirmed" is
the mean of its winner over its seeds, and does not contain the luck of a single seed.

    python tests/benchmarks/bench_defaults.py [--trials 1000] [--steps 2000] [--seeds 5] [--confirm]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np

from studies.harness.store.study import load_study

ROOT = Path(__file__).resolve().parents[2]
AFTER = (10, 30, 60)  # seconds
VARIANTS = {"default": [], "--no-prune": ["--no-prune"]}
COLUMNS = [
    "best dev loss",
    "confirmed",
    "seconds",
    "% busy",
    "whole trials",
    *(f"best after {s} s" for s in AFTER),
]


def run_script(script: Path, flags: Iterable[str], folder: Path) -> dict[str, Any]:
    """Run a study script in a folder; returns its JSON line."""
    command = [sys.executable, str(script), "--json", *flags]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed:\n{done.stderr}")
    return dict(json.loads(done.stdout.splitlines()[-1]))


def run_study(script: Path, flags: list[str], confirm: bool) -> dict[str, float]:
    """Run one study; returns its results by COLUMNS. A cost of 1 is a trial's number of steps."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        begun = time.perf_counter()
        outcome = run_script(script, [*flags, "--repeats", "0"], folder)
        seconds = time.perf_counter() - begun
        storage = str(folder / f"mlruns/optuna/{outcome['study']}.journal")
        trials = load_study(outcome["study"], storage).get_trials(deepcopy=False)
        confirmed = run_script(script, flags, folder)["best_mean"] if confirm else math.nan
    rows = [row for t in trials for row in t.user_attrs.get("summary", {}).get("history", [])]
    ends = [t.user_attrs.get("summary", {}).get("history", [[0]])[-1][0] for t in trials]
    start = min(t.datetime_start.timestamp() for t in trials if t.datetime_start)
    result = {"best dev loss": outcome["best_dev_loss"], "confirmed": confirmed}
    result["seconds"] = seconds
    result["% busy"] = 100 * outcome["train_s"] / outcome["slots"] / seconds
    result["whole trials"] = sum(ends) / max(ends)
    for limit in AFTER:
        losses = [loss for _, _, loss, _, at in rows if at <= start + limit]
        result[f"best after {limit} s"] = min(losses, default=math.inf)
    return result


def as_cells(result: dict[str, float]) -> str:
    """Return the cells of a row of the table."""
    digits = {"seconds": 0, "% busy": 0, "whole trials": 0}
    return " | ".join(f"{result[name]:.{digits.get(name, 4)}f}" for name in COLUMNS)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--steps", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--only", choices=VARIANTS)
    parser.add_argument("--confirm", action="store_true", help="train seed repeats of the best")
    parser.add_argument("--script", type=Path, default=ROOT / "studies" / "mlp.py")
    args = parser.parse_args()
    print("| study | seed | " + " | ".join(COLUMNS) + " |\n|" + "---|" * (len(COLUMNS) + 2))
    results: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for seed in range(args.first_seed, args.first_seed + args.seeds):
        for name in [args.only] if args.only else VARIANTS:
            flags = ["--trials", str(args.trials), "--steps", str(args.steps), "--seed", str(seed)]
            result = run_study(args.script, [*flags, *VARIANTS[name]], args.confirm)
            results[name].append(result)
            print(f"| {name} | {seed} | {as_cells(result)} |", flush=True)
    for name, found in results.items():
        if found:
            median = {column: float(np.median([r[column] for r in found])) for column in COLUMNS}
            print(f"| {name} | median | {as_cells(median)} |")


if __name__ == "__main__":
    main()
