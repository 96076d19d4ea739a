"""Measures how long a search takes to reach a dev loss: studies/mlp.py, over several seeds.

The peer is plain_study.py with TPE and MedianPruner. Both search the same five parameters and
ranges with 5,000 SGD steps a trial, their own pruner and all stores. Time counts from the start
of the process. The peer gets at most 100 trials, and both at most `--timeout` seconds; a search
that does not reach the loss counts as `--timeout` seconds.

    python tests/benchmarks/bench_target.py [--level 2.07] [--seeds 5] [--names PATH]
"""

from __future__ import annotations

import argparse
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from studies.harness.store.study import load_study

HERE = Path(__file__).resolve().parent
STUDY = HERE.parents[1] / "studies" / "mlp.py"


def reached(folder: Path, level: float) -> float:
    """Return when the study in a folder first had a dev loss of at most `level`.

    Returns:
        Seconds since the epoch; inf if it did not reach that loss yet.
    """
    try:
        trials = load_study("mlp", str(folder / "mlruns/optuna/mlp.journal")).get_trials(
            deepcopy=False
        )
    except ValueError:  # the study does not exist yet
        return math.inf
    rows = [
        row for trial in trials for row in trial.user_attrs.get("summary", {}).get("history", [])
    ]
    return min((at for _, _, dev_loss, _, at in rows if dev_loss <= level), default=math.inf)


def ours(seed: int, level: float, timeout: float, names: list[str]) -> float:
    """Return the seconds that studies/mlp.py took, from the start of its process."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        began = time.time()
        flags = ["--trials", "1000", "--repeats", "0", "--seed", str(seed), *names]
        study = subprocess.Popen(
            [sys.executable, str(STUDY), *flags],
            cwd=folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        while (at := reached(folder, level)) == math.inf and time.time() - began < timeout:
            if study.poll() is not None:
                raise RuntimeError(f"the study of seed {seed} ended with code {study.returncode}")
            time.sleep(0.5)
        study.send_signal(signal.SIGINT)
        study.wait(30)
    return min(at - began, timeout)


def plain(seed: int, level: float, timeout: float, names: list[str]) -> float:
    """Return the seconds that the plain script took, from the start of its process."""
    with tempfile.TemporaryDirectory() as folder:
        flags = [
            "--trials",
            "100",
            "--prune",
            "--seed",
            str(seed),
            "--until",
            str(level),
            "--timeout",
            str(timeout),
        ]
        began = time.time()
        command = [sys.executable, str(HERE / "plain_study.py"), *flags, *names]
        done = subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True)
    outcome = json.loads(done.stdout.splitlines()[-1])
    arrived = outcome["best_dev_loss"] <= level
    return min(outcome["stopped_at"] - began, timeout) if arrived else timeout


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--level", type=float, default=2.07)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--timeout", type=float, default=165.0)
    parser.add_argument("--names", type=Path, help="file of words; the embedded ones if not given")
    parser.add_argument("--only", choices=["ours", "plain"])
    args = parser.parse_args()
    names = ["--names", str(args.names.absolute())] if args.names else []
    limits = f"{os.cpu_count()} cores, at most {args.timeout:g} s"
    print(f"seconds to a dev loss of {args.level}, {limits}", flush=True)
    medians = {}
    for name, search in (("ours", ours), ("plain", plain)):
        if args.only in (None, name):
            seconds = [search(seed, args.level, args.timeout, names) for seed in range(args.seeds)]
            medians[name] = float(np.median(seconds))
            print(
                f"{name:<6} median {medians[name]:6.1f}  " + " ".join(f"{s:6.1f}" for s in seconds),
                flush=True,
            )
    if len(medians) == 2:
        print(f"ratio  {medians['plain'] / medians['ours']:.1f}")


if __name__ == "__main__":
    main()
