"""Compares samplers and pruners without training: replays searches over a table of learning curves.

The peers are Optuna's own samplers and pruners, and random search with twice the budget. A
proposal gets the nearest configuration of the table that is still unused, with its measured dev
losses. A pruned trial costs only its steps up to there. Costs are in whole trials: 1 is the
steps of one trial. make_curves.py makes the table, learning_curves.csv.gz.

    python tests/benchmarks/bench_search.py [--seeds 20] [--budget 40] [--curves average|dev]
        [--only SAMPLER/PRUNER ...]
"""

from __future__ import annotations

import argparse
import math
import os
import time
import warnings
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.pruners import (
    BasePruner,
    HyperbandPruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, GPSampler, RandomSampler, TPESampler
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from studies.harness.report.scales import Scale
from studies.harness.search.samplers import SpreadThenTPE
from studies.harness.search.spaces import describe, distributions
from studies.record import space as eight_parameters

TABLE = Path(__file__).with_name("learning_curves.csv.gz")
LEVELS = (2.10, 2.00, 1.98)
BASE = Config(optimizer="adamw")
SPACE = distributions(eight_parameters, BASE)


@dataclass(frozen=True)
class Table:
    """The configurations of the table.

    Attributes:
        params: the N parameter sets.
        places: (N, 8) the parameters on scales from 0 to 1; learning rate, decay and batch size
            are logarithmic.
        curves: (N, P) dev losses at P evenly spaced steps; inf after divergence.
    """

    params: list[dict[str, Any]]
    places: np.ndarray
    curves: np.ndarray


@cache
def read_table(kind: str) -> Table:
    """Read the table.

    Args:
        kind: "dev" for the losses of the weights, "average" for those of their running average.
    """
    frame = pd.read_csv(TABLE)
    columns = [name for name in frame if str(name).startswith(f"{kind}_")]
    params = [
        {str(name): value for name, value in row.items()}
        for row in frame[list(SPACE)].to_dict("records")
    ]
    curves = frame[columns].fillna(math.inf).to_numpy()
    return Table(params, places(params), curves)


def places(params: list[dict[str, Any]]) -> np.ndarray:
    """Return parameters (N, 8) on scales from 0 to 1."""
    scales = {name: Scale.searched(distribution) for name, distribution in SPACE.items()}
    columns = {name: scale.unit(p[name] for p in params) for name, scale in scales.items()}
    columns["direct"] = columns["direct"] / 2  # a yes/no parameter would weigh too much
    return np.stack(list(columns.values()), axis=1)


class FromTable(BaseSampler):
    """Replaces a sampler's proposal by the nearest unused configuration of the table."""

    def __init__(self, sampler: BaseSampler, table: Table) -> None:
        self._sampler = sampler
        self._table = table
        self._free = np.ones(len(table.params), bool)
        self.row = -1  # of the last trial

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return SPACE

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        space = self._sampler.infer_relative_search_space(study, trial)
        proposal = self._sampler.sample_relative(study, trial, space)
        for name, distribution in SPACE.items():
            if name not in proposal:
                proposal[name] = self._sampler.sample_independent(study, trial, name, distribution)
        distances = ((self._table.places - places([proposal])) ** 2).sum(axis=1)
        self.row = int(np.argmin(np.where(self._free, distances, math.inf)))
        self._free[self.row] = False
        return self._table.params[self.row]

    def sample_independent(self, *_: Any) -> Any:
        raise AssertionError("all parameters are sampled together")

    def after_trial(
        self, study: optuna.Study, trial: FrozenTrial, state: TrialState, values: Any
    ) -> None:
        self._sampler.after_trial(study, trial, state, values)


SAMPLERS: dict[str, Callable[[int], BaseSampler]] = {
    "random": lambda seed: RandomSampler(seed=seed),
    "TPE": lambda seed: TPESampler(seed=seed),
    "spread, then TPE": SpreadThenTPE,
    "GP": lambda seed: GPSampler(seed=seed, deterministic_objective=False),
}
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda points: NopPruner(),
    "median": lambda points: MedianPruner(5, 0),
    "median after 15%": lambda points: MedianPruner(5, 3 * points // 20),
    "best quarter after 15%": lambda points: PercentilePruner(
        25.0, n_startup_trials=5, n_warmup_steps=3 * points // 20
    ),
    "halving 1/3 from 15%": lambda points: SuccessiveHalvingPruner(
        min_resource=3 * points // 20, reduction_factor=3
    ),
    "halving 1/4 from 15%": lambda points: SuccessiveHalvingPruner(
        min_resource=3 * points // 20, reduction_factor=4
    ),
    "halving 1/4 from 10%": lambda points: SuccessiveHalvingPruner(
        min_resource=points // 10, reduction_factor=4
    ),
    "halving 1/6 from 15%": lambda points: SuccessiveHalvingPruner(
        min_resource=3 * points // 20, reduction_factor=6
    ),
    "halving 1/3 from 25%": lambda points: SuccessiveHalvingPruner(
        min_resource=points // 4, reduction_factor=3
    ),
    "halving 1/4 from 40%": lambda points: SuccessiveHalvingPruner(
        min_resource=2 * points // 5, reduction_factor=4
    ),
    "hyperband": lambda points: HyperbandPruner(
        min_resource=points // 10, max_resource=points, reduction_factor=3
    ),
    "wilcoxon": lambda points: WilcoxonPruner(p_threshold=0.1),
}


def replay(sampler: str, pruner: str, seed: int, budget: float, kind: str) -> np.ndarray:
    """Run one search; returns (K, 2) cost and best dev loss so far, after each evaluation."""
    warnings.simplefilter("ignore")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    table = read_table(kind)
    points = table.curves.shape[1]
    draws = FromTable(SAMPLERS[sampler](seed), table)
    study = optuna.create_study(sampler=draws, pruner=PRUNERS[pruner](points))
    study.set_user_attr("seed", seed)
    study.set_user_attr("space", describe(eight_parameters, BASE))
    cost, best, seen = 0.0, math.inf, []
    for _ in table.params:
        trial = study.ask(SPACE)
        lowest, state = math.inf, TrialState.COMPLETE
        for point, loss in enumerate(table.curves[draws.row], start=1):
            cost += 1 / points
            if not math.isfinite(loss):
                state = TrialState.PRUNED
                break
            lowest = min(lowest, loss)
            best = min(best, loss)
            seen.append((cost, best))
            trial.report(loss, point)
            if point < points and trial.should_prune():
                state = TrialState.PRUNED
                break
        study.tell(trial, lowest if state == TrialState.COMPLETE else None, state=state)
        if cost >= budget:
            break
    return np.array(seen)


def summarise(searches: list[np.ndarray], budget: float) -> dict[str, Any]:
    """Return medians over seeds: cost to each level, and best loss at shares of the budget.

    The shares are a quarter, a half and all.
    """
    row: dict[str, Any] = {}
    for level in LEVELS:
        costs = [
            next((cost for cost, best in search if best <= level), math.inf) for search in searches
        ]
        row[f"to {level:.2f}"] = float(np.median(costs))
    for share in (0.25, 0.5, 1.0):
        ends = [search[search[:, 0] <= share * budget + 1e-9][-1, 1] for search in searches]
        row[f"best at {share * budget:g}"] = float(np.median(ends))
    return row


def rank_correlations(kind: str) -> dict[str, list[float]]:
    """Return how well early losses rank the configurations.

    Returns:
        Spearman's correlations of the loss at 5, 15, 25, 50 and 75% of the steps with the lowest
        dev loss of the weights; over all configurations, and over the best quarter.
    """
    curves = pd.DataFrame(read_table(kind).curves)
    final = pd.Series(read_table("dev").curves.min(axis=1))
    shares = [0.05, 0.15, 0.25, 0.5, 0.75]
    columns = [round(share * curves.shape[1]) - 1 for share in shares]
    best = final.nsmallest(len(final) // 4).index
    return {
        "all": [curves[c].corr(final, method="spearman") for c in columns],
        "best quarter": [curves[c][best].corr(final[best], method="spearman") for c in columns],
    }


def main(args: argparse.Namespace) -> None:
    began = time.perf_counter()
    n_rows = len(read_table("dev").params)
    print(f"{n_rows} learning curves; rank correlation of the dev loss at 5, 15, 25, 50 and 75% of")
    print("the steps with the lowest dev loss")
    for kind, title in (("dev", "weights"), ("average", "their average")):
        for which, values in rank_correlations(kind).items():
            print(f"  {title:<14}{which:<13}" + " ".join(f"{value:6.2f}" for value in values))
    lowest = read_table("average").curves.min(axis=1) - read_table("dev").curves.min(axis=1)
    print(f"lowest loss of the average minus that of the weights: median {np.median(lowest):+.4f}")
    rows = {}
    with ProcessPoolExecutor(args.processes) as pool:

        def start(name: str, budget: float) -> list[Future[np.ndarray]]:
            sampler, pruner = (part.strip() for part in name.split("/", maxsplit=1))
            return [
                pool.submit(replay, sampler, pruner, seed, budget, args.curves)
                for seed in range(args.seeds)
            ]

        started = {name: start(name, args.budget) for name in args.only or DEFAULT}
        twice = start("random/none", 2 * args.budget)
        for name, searches in started.items():
            rows[name] = summarise([search.result() for search in searches], args.budget)
        end = summarise([search.result() for search in twice], 2 * args.budget)[
            f"best at {2 * args.budget:g}"
        ]
    print(f"\n{args.seeds} seeds, medians; costs in whole trials, curves of the {args.curves}")
    print(
        pd.DataFrame(rows).T.to_string(
            float_format=lambda value: f"{value:.4g}" if value > 2.2 else f"{value:.4f}"
        )
    )
    print(f"random search with twice the budget: {end:.4f}")
    print(f"{time.perf_counter() - began:.0f} s")


DEFAULT = [
    *(f"{sampler}/none" for sampler in SAMPLERS if sampler != "GP"),
    *(f"TPE/{pruner}" for pruner in PRUNERS if pruner != "none"),
    "spread, then TPE/halving 1/4 from 10%",
    "random/halving 1/4 from 15%",
]

if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument(
        "--budget", type=float, default=40.0, help="cost of a search in whole trials (default: 40)"
    )
    parser.add_argument("--curves", choices=["average", "dev"], default="average")
    parser.add_argument("--only", nargs="*", help="pairs SAMPLER/PRUNER")
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    main(parser.parse_args())
