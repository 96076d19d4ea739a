"""Runs fault schedules and prints what was lost: python -m tests.chaos --faults 60 --seed 0.

`--schedule SEED` runs one schedule again. The moments of its faults depend on the machine's speed,
so a rare error may need several runs.
"""

from __future__ import annotations

import argparse
import shutil
import signal
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from tests.chaos.checker import DIFFERS, DOUBLED, FILE_LOST, LOST, OPEN, OUTSIDE
from tests.chaos.runner import Result, Session
from tests.chaos.schedules import KINDS, Schedule, make_schedule
from tests.chaos.world import World

FINDINGS = (
    LOST,
    DOUBLED,
    FILE_LOST,
    DIFFERS,
    OPEN,
    OUTSIDE,
    "original touched",
    "not reproduced",
    "not completed",
    "hang",
    "traceback",
    "doctor disagrees",
)


def main() -> int:
    """Return 0 if every promise was kept, else 1."""
    args = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # leave no server and no mounted disk
    folder = Path(args.folder or tempfile.mkdtemp(prefix="chaos-")).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    world = World(folder)
    results = []
    try:
        for result in run_schedules(world, args):
            results.append(result)
            print(describe(result), flush=True)
            if not result.findings:
                shutil.rmtree(result.folder)
    finally:
        world.close()
    print(summary(results))
    failed = any(result.findings for result in results)
    if not failed and not args.folder:
        shutil.rmtree(folder)
    return int(failed)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.chaos", description=__doc__)
    parser.add_argument("--faults", type=int, default=60, help="faults that must hit (60)")
    parser.add_argument("--seed", type=int, default=0, help="seed of all schedules (0)")
    parser.add_argument("--schedule", type=int, help="run only the schedule with this seed")
    parser.add_argument("--kinds", default=",".join(KINDS), help="kinds of faults, with commas")
    parser.add_argument("--cold", action="store_true", help="start new interpreters; slow")
    parser.add_argument("--folder", help="folder for the studies; default: a temporary one")
    args = parser.parse_args()
    args.kinds = args.kinds.split(",")
    if unknown := set(args.kinds) - set(KINDS):
        parser.error(f"--kinds: unknown {', '.join(unknown)}; the kinds are {', '.join(KINDS)}")
    return args


def run_schedules(world: World, args: argparse.Namespace) -> Iterator[Result]:
    """Run schedules until enough faults have hit."""
    cold = True if args.cold else None
    if args.schedule is not None:
        yield Session(world, make_schedule(args.schedule, args.kinds, cold)).run()
        return
    hit = 0
    seed = 100_000 * args.seed
    while hit < args.faults:
        result = Session(world, make_schedule(seed, args.kinds, cold)).run()
        hit += result.hit.total()
        seed += 1
        yield result


def describe(result: Result) -> str:
    """Return a schedule's line, and one line for each finding."""
    schedule: Schedule = result.schedule
    drawn = len(schedule.faults)
    line = f"{schedule}: {result.hit.total()} of {drawn} faults hit, {result.seconds:.0f} s"
    if result.repaired:
        line += f", {len(result.repaired)} findings repaired"
    if not result.findings:
        return line + ", kept"
    (result.folder / "findings").write_text("\n".join(map(str, result.findings)) + "\n")
    lines = [f"{line}, BROKEN; all findings: {result.folder}/findings"]
    for kind in FINDINGS:
        found = [finding.detail for finding in result.findings if finding.kind == kind]
        more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
        lines += [f"         {kind}: {detail[:300]}{more}" for detail in found[:1]]
    return "\n".join(lines)


def summary(results: list[Result]) -> str:
    """Return the tables of all schedules: faults by kind, and findings by kind."""
    hit: Counter[str] = sum((result.hit for result in results), Counter())
    found = Counter(finding.kind for result in results for finding in result.findings)
    repaired = Counter(finding.kind for result in results for finding in result.repaired)
    broken = [result for result in results if result.findings]
    lines = ["", f"{'fault':<22}{'hit':>6}{'in broken schedules':>22}"]
    for kind in KINDS:
        lines.append(f"{kind:<22}{hit[kind]:>6}{sum(r.hit[kind] for r in broken):>22}")
    lines += ["", f"{'finding':<22}{'left':>6}{'repaired by the doctor':>24}"]
    for kind in FINDINGS:
        lines.append(f"{kind:<22}{found[kind]:>6}{repaired[kind]:>24}")
    launches = sum(result.launches for result in results)
    trials = sum(result.schedule.trials for result in results)
    lines += [
        "",
        f"{len(results)} schedules, {trials} trials, {launches} processes, {hit.total()} faults, "
        f"{sum(result.seconds for result in results) / 60:.1f} minutes; "
        f"{len(broken)} schedules broken.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
