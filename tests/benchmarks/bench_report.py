"""Measures what the end of a large study costs: its report, pictures, note, and compare.py.

It has no peer. A real study of a few trials is trained, so that the winner has a model in MLflow
and seed repeats. Then made-up trials are added to Optuna's journal. A third of them is pruned. None
is better than the winner.

"report.py" and "compare.py" are whole processes. The other columns are seconds of CPU time of what
a launch does at its end, without imports.

    python tests/benchmarks/bench_report.py [--trials 100 1000 10000]
"""

from __future__ import annotations

import argparse
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from optuna import Study
from optuna.distributions import json_to_distribution

from studies.harness.report.build import examine_study, render_report, write_study_files
from studies.harness.report.page.note import write_note
from studies.harness.store.paths import ROOT
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss
from tests.studies.synthetic import random_trials

NAME = "made-up"


class Process(NamedTuple):
    """What a script cost: seconds on the clock, CPU seconds, and its largest memory in MB."""

    wall: float
    cpu: float
    memory: float


def run(script: str, *arguments: str) -> Process:
    """Run a script of studies/ in this folder."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    begun = time.perf_counter()
    child = subprocess.Popen(
        [sys.executable, str(ROOT / "studies" / script), *arguments],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _, status, usage = os.wait4(child.pid, 0)
    if status:
        raise RuntimeError(f"{script} ended with status {status}")
    wall = time.perf_counter() - begun
    return Process(wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def grow(study: Study, n: int) -> None:
    """Add made-up trials to a study until it has n."""
    space = {key: json_to_distribution(text) for key, text in study.user_attrs["space"].items()}
    existing = study.get_trials(deepcopy=False)
    best = min(loss for loss in map(dev_loss, existing) if loss is not None)

    def loss(params: dict[str, Any]) -> float:
        return best + 0.02 + 0.1 * abs(math.log10(params["lr"]) + 0.4) + 4 / params["n_hidden"]

    study.add_trials(random_trials(n - len(existing), loss, space, seed=n))


def spent(task: Callable[[], Any]) -> tuple[float, Any]:
    """Return the CPU seconds of a task, and its result."""
    begun = time.process_time()
    result = task()
    return time.process_time() - begun, result


def measure(n: int) -> str:
    """Return the row of the table for a study that has n trials."""
    report = run("report.py", NAME, "--out", "report.html")
    compare = run("compare.py", NAME)
    study = load_study(NAME, None)
    folder = Path("files")
    folder.mkdir(exist_ok=True)
    judged, (findings, check) = spent(lambda: examine_study(study, None, None))
    drawn, page = spent(lambda: render_report(study, findings, check))
    written, _ = spent(lambda: write_study_files(study, folder))
    note = write_note(findings, {"script": "studies/mlp.py"}, "1")
    cells = [
        f"{n:,}",
        f"{report.wall:.1f}",
        f"{report.cpu:.1f}",
        f"{report.memory:.0f}",
        f"{Path('report.html').stat().st_size / 1e6:.2f}",
        f"{compare.wall:.1f}",
        f"{compare.cpu:.1f}",
        *(f"{seconds:.2f}" for seconds in (judged, drawn, written)),
        f"{len(note):,}",
    ]
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, nargs="+", default=[100, 1000, 10_000])
    args = parser.parse_args()

    headings = ["trials", "report.py s", "CPU s", "MB of memory", "MB page", "compare.py s"]
    headings += ["CPU s", "verdicts", "page", "pictures and table", "characters of the note"]
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        run("mlp.py", "--study", NAME, "--trials", "24", "--steps", "1000")
        print(f"| {' | '.join(headings)} |\n{'|---' * len(headings)}|")
        for n in sorted(args.trials):
            grow(load_study(NAME, None), n)
            print(measure(n), flush=True)
        os.chdir(ROOT)


if __name__ == "__main__":
    main()
