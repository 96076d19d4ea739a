"""Compares pruners and samplers without training: replays searches over measured learning curves.

- Pruners: a search draws trainings of the table, first from the whole space, later more and more
  often from TPE's proposals. All pruners are Optuna's own, but "ASHA" (Li et al. 2018), which can
  resume a trial that it stopped. Optuna has no such pruner.
- Samplers: a model of the curves answers each proposal, with the noise of a training.

A study evaluates the weights, or with `ema` their average. Costs are in whole trials: 1 is the
number of steps of one trial without a pruner. make_curves.py makes the tables.

    python tests/benchmarks/bench_search.py [--seeds 20] [--trials 1000] [--space five|tpe|wide]
        [--only pruners|samplers] [--sampler NAME ...]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import time
import warnings
from concurrent.futures import Future, ProcessPoolExecutor

import numpy as np
import optuna
from threadpoolctl import threadpool_limits

from tests.benchmarks.curve_table import FILES, KINDS, curve_model, rank_correlations, read_table
from tests.benchmarks.search_replays import (
    ASHA,
    PRUNERS,
    SAMPLERS,
    replay_pruner,
    replay_sampler,
)

# Searches over the model of the curves: sampler, pruner, kind of curve.
SEARCHES = [
    *((sampler, "none", "average") for sampler in SAMPLERS),
    ("TPE, as in studies", "median", "weights"),
    ("TPE, as in studies", "median from 60%", "weights"),
    ("TPE, as in studies", "median", "average"),
    ("TPE, as in studies", "halving 1/2 from 10%", "average"),
    ("TPE, as in studies", "halving 1/3 from 10%", "average"),
    ("TPE, as in studies", "halving 1/4 from 10%", "average"),
    ("TPE, as in studies", "halving 1/4 from 20%", "average"),
    ("spread, then TPE", "halving 1/4 from 10%", "average"),
]
HAS_CMA = importlib.util.find_spec("cmaes") is not None
Row = dict[str, float]


def main(args: argparse.Namespace) -> None:
    began = time.perf_counter()
    table = read_table(args.space)
    samplers = args.only != "pruners" and args.space == "five"
    print(
        f"{len(table.params):,} trainings. Rank correlation of an early loss with the lowest one:"
    )
    correlations = {
        f"{kind}, {which}": [f"{value:.2f}" for value in values]
        for kind in KINDS
        for which, values in rank_correlations(table, kind).items()
    }
    print_table("evaluated at", correlations, ["10%", "20%", "40%", "50%", "60%"])
    if samplers:
        # Before the processes start, which then have the models. More threads of the linear algebra
        # library would wait for each other.
        with threadpool_limits(1):
            good = ", ".join(f"{curve_model(kind).held_out:.2f} ({kind})" for kind in KINDS)
    with ProcessPoolExecutor(args.processes, initializer=_be_quiet) as pool:
        pruning = {
            f"{name}, {kind}": [
                pool.submit(replay_pruner, args.space, name, kind, args.trials, seed)
                for seed in range(args.seeds)
            ]
            for name in [*PRUNERS, *ASHA]
            if args.only != "samplers"
            for kind in KINDS
        }
        proposing = {
            f"{sampler}; {pruner}, {kind}": [
                pool.submit(replay_sampler, sampler, pruner, kind, args.trials, seed)
                for seed in range(args.seeds)
            ]
            for sampler, pruner, kind in SEARCHES
            if samplers and (HAS_CMA or "CMA" not in sampler)
            if not args.sampler or sampler in args.sampler
        }
        if pruning:
            print(f"\nPruners, up to {args.trials:,} trials, medians of {args.seeds} seeds:")
            print_results("pruner, evaluated", pruning)
        if samplers:
            print(f"\nSamplers, {args.trials:,} trials, medians of {args.seeds} seeds. Rank")
            print(f"correlation of the model with held-out trainings, best quarter: {good}")
            print_results("sampler; pruner, evaluated", proposing)
            if not HAS_CMA:
                print("\nCMA-ES was left out, because the package cmaes is not installed.")
    print(f"\n{time.perf_counter() - began:.0f} s")


def print_results(first: str, started: dict[str, list[Future[Row]]]) -> None:
    """Print the medians of the searches, one row for each kind of search, once it is done."""
    columns = list(next(iter(started.values()))[0].result())
    digits = [0 if column.startswith("cost") or "%" in column else 4 for column in columns]
    print_head(first, columns)
    for name, futures in started.items():
        rows = [future.result() for future in futures]
        medians = [
            f"{np.median([row[column] for row in rows]):.{n}f}{'%' * ('%' in column)}"
            for column, n in zip(columns, digits, strict=True)
        ]
        print_row(name, medians)


def print_table(first: str, rows: dict[str, list[str]], columns: list[str]) -> None:
    """Print a Markdown table; `first` is the title of the rows' names."""
    print_head(first, columns)
    for name, values in rows.items():
        print_row(name, values)


def print_head(first: str, columns: list[str]) -> None:
    """Print the head of a Markdown table."""
    print()
    print_row(first, columns)
    print("|" + "---|" * (len(columns) + 1), flush=True)


def print_row(name: str, values: list[str]) -> None:
    """Print a row of a Markdown table."""
    print("| " + " | ".join([name, *values]) + " |", flush=True)


def _be_quiet() -> None:
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--trials", type=int, default=1000, help="of each search")
    parser.add_argument("--space", choices=FILES, default="five")
    parser.add_argument("--only", choices=["pruners", "samplers"])
    parser.add_argument("--sampler", nargs="+", choices=SAMPLERS, help="only these")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    _be_quiet()
    main(parser.parse_args())
