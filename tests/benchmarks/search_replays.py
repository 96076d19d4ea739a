"""Replays of searches: pruners over measured learning curves, samplers over a model of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, IntDistribution
from optuna.pruners import (
    BasePruner,
    MedianPruner,
    NopPruner,
    PercentilePruner,
    SuccessiveHalvingPruner,
    WilcoxonPruner,
)
from optuna.samplers import BaseSampler, CmaEsSampler, RandomSampler, TPESampler
from optuna.trial import TrialState

from studies import mlp
from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.search.samplers.spread import SpreadThenTPE
from studies.harness.search.samplers.tpe import default_sampler
from studies.harness.search.samplers.view import SearchSampler, SearchView
from studies.harness.search.spaces import describe, distributions
from tests.benchmarks.curve_table import curve_model, read_table

COSTS = (10, 30, 100)  # in whole trials
SPACE = distributions(mlp.space, mlp.BASE)
LOG2 = {**SPACE, "batch_size": IntDistribution(5, 8)}  # 32 to 256


def halving(share: float, factor: int) -> Callable[[int], BasePruner]:
    """Return what makes the pruner whose first rung is at a share of the evaluations."""
    return lambda points: SuccessiveHalvingPruner(
        min_resource=max(1, round(share * points)), reduction_factor=factor
    )


# What makes each pruner, from the number of evaluations of a trial.
PRUNERS: dict[str, Callable[[int], BasePruner]] = {
    "none": lambda points: NopPruner(),
    "median": lambda points: MedianPruner(5, 0),
    "median from 60%": lambda points: MedianPruner(5, 6 * points // 10),
    "best quarter": lambda points: PercentilePruner(25.0, 5, 0),
    "best quarter from 20%": lambda points: PercentilePruner(25.0, 5, 2 * points // 10),
    "best quarter from 60%": lambda points: PercentilePruner(25.0, 5, 6 * points // 10),
    "halving 1/2 from 10%": halving(0.1, 2),
    "halving 1/3 from 10%": halving(0.1, 3),
    "halving 1/4 from 10%": halving(0.1, 4),
    "halving 1/4 from 20%": halving(0.2, 4),
    "halving 1/4 from 40%": halving(0.4, 4),
    "halving 1/4 from 60%": halving(0.6, 4),
    "Wilcoxon": lambda points: WilcoxonPruner(p_threshold=0.1),
}
ASHA = {"ASHA 1/4 from 10%": (0.1, 4), "ASHA 1/4 from 20%": (0.2, 4), "ASHA 1/4 from 60%": (0.6, 4)}


@dataclass
class Progress:
    """The course of one search.

    Attributes:
        seen: (trials begun, cost, lowest loss so far) after each evaluation.
        kept: trainings that reached their end.
    """

    seen: list[tuple[int, float, float]] = field(default_factory=list)
    kept: set[int] = field(default_factory=set)

    def add(self, begun: int, cost: float, loss: float) -> None:
        """Add an evaluation."""
        _, before, lowest = self.seen[-1] if self.seen else (0, 0.0, math.inf)
        self.seen.append((begun, before + cost, min(lowest, loss)))

    def row(self, trials: tuple[int, ...]) -> dict[str, float]:
        """Return the lowest losses after some trials and at some costs, and the whole cost."""
        begun, costs, lowest = np.array(self.seen).T

        def until(done: np.ndarray, limit: float) -> float:
            return float(lowest[max(0, np.searchsorted(done, limit + 1e-9, side="right") - 1)])

        row = {f"best after {n} trials": until(begun, n) for n in trials}
        row |= {"best at the end": float(lowest[-1]), "cost at the end": float(costs[-1])}
        return row | {f"best at cost {cost}": until(costs, cost) for cost in COSTS}


# ---- pruners


def replay_pruner(space: str, pruner: str, kind: str, trials: int, seed: int) -> dict[str, float]:
    """Run one search that draws trainings of the table; returns the row of its results."""
    table = read_table(space)
    curves = table.curves[kind]
    drawn = table.draw(trials, np.random.default_rng(seed))
    progress = Progress()
    search = _asha if pruner in ASHA else _prune
    search(pruner, curves, drawn, progress)
    best = drawn[np.argsort(table.lowest(kind)[drawn])[: len(drawn) // 50]]
    row = progress.row((100,))
    return {**row, "kept of the best 2%": 100 * len(progress.kept & set(best)) / len(best)}


def _prune(name: str, curves: np.ndarray, drawn: np.ndarray, progress: Progress) -> None:
    study = optuna.create_study(sampler=RandomSampler(), pruner=PRUNERS[name](curves.shape[1]))
    for begun, number in enumerate(drawn, start=1):
        if _train(study.ask(), curves[number], begun, progress):
            progress.kept.add(number)


def _train(trial: optuna.Trial, curve: np.ndarray, begun: int, progress: Progress) -> bool:
    """Train one trial until the pruner stops it; returns whether it reached its end."""
    for point, loss in enumerate(curve, start=1):
        progress.add(begun, 1 / len(curve), float(loss))
        if math.isfinite(loss):
            trial.report(float(loss), point)
        if not math.isfinite(loss) or (point < len(curve) and trial.should_prune()):
            trial.study.tell(trial, state=TrialState.PRUNED)
            return False
    trial.study.tell(trial, float(curve.min()))
    return True


def _asha(name: str, curves: np.ndarray, drawn: np.ndarray, progress: Progress) -> None:
    """Successive halving that resumes: a trial continues once it is in the best share of a rung."""
    share, factor = ASHA[name]
    points = curves.shape[1]
    rungs = [0, max(1, round(share * points))]
    while rungs[-1] < points:
        rungs.append(min(points, rungs[-1] * factor))
    reached: list[list[tuple[float, int]]] = [[] for _ in rungs]  # (loss, number) at each rung
    promoted: list[set[int]] = [set() for _ in rungs]
    fresh = iter(drawn)
    while True:
        rung, number = _next_promotion(reached, promoted, factor) or (0, next(fresh, None))
        if number is None:
            return
        promoted[rung].add(number)
        part = curves[number, rungs[rung] : rungs[rung + 1]]
        for loss in part:
            progress.add(len(promoted[0]), 1 / points, float(loss))
            if not math.isfinite(loss):
                break
        reached[rung + 1].append((float(part[-1]), number))
        if rungs[rung + 1] == points:
            progress.kept.add(number)


def _next_promotion(
    reached: list[list[tuple[float, int]]], promoted: list[set[int]], factor: int
) -> tuple[int, int] | None:
    for rung in range(len(reached) - 2, 0, -1):
        for loss, number in sorted(reached[rung])[: len(reached[rung]) // factor]:
            if number not in promoted[rung] and math.isfinite(loss):
                return rung, number
    return None


# ---- samplers


class TpeThenCma(BaseSampler):
    """TPE for 100 trials, then CMA-ES that starts at the best of them."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._tpe = TPESampler(seed=seed)
        self._cma: CmaEsSampler | None = None

    def _chosen(self, study: optuna.Study, number: int) -> BaseSampler:
        if number < 100:
            return self._tpe
        if self._cma is None:
            self._cma = CmaEsSampler(x0=study.best_params, sigma0=0.1, seed=self._seed)
        return self._cma

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        return self._chosen(study, trial.number).infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return self._chosen(study, trial.number).sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, *parameter: Any) -> Any:
        return self._tpe.sample_independent(study, trial, *parameter)

    def after_trial(self, study: Any, trial: Any, *outcome: Any) -> None:
        self._chosen(study, trial.number).after_trial(study, trial, *outcome)


class TpeInStudies(BaseSampler):
    """A sampler as the studies of this project use it: it reads the trials from columns.

    The default is TPE, whose worse group is limited to the last trials.
    """

    def __init__(self, seed: int, make: Callable[[int], BaseSampler] = default_sampler) -> None:
        self._tpe = make(seed)
        self._inner: BaseSampler = self._tpe
        self._table: TrialTable | None = None

    def infer_relative_search_space(self, study: Any, trial: Any) -> dict[str, BaseDistribution]:
        if self._table is None:
            self._table = TrialTable(study)
            self._inner = SearchSampler(self._tpe, SearchView(study, self._table))
        self._table.refresh()
        return self._inner.infer_relative_search_space(study, trial)

    def sample_relative(self, study: Any, trial: Any, search_space: Any) -> dict[str, Any]:
        return self._inner.sample_relative(study, trial, search_space)

    def sample_independent(self, study: Any, trial: Any, *parameter: Any) -> Any:
        return self._inner.sample_independent(study, trial, *parameter)


SAMPLERS: dict[str, tuple[Callable[[int], BaseSampler], dict[str, BaseDistribution]]] = {
    "random": (lambda seed: RandomSampler(seed=seed), SPACE),
    "TPE": (lambda seed: TPESampler(seed=seed), SPACE),
    "TPE, as in studies": (TpeInStudies, SPACE),
    "TPE, log2 of batch_size": (TpeInStudies, LOG2),
    "spread, then TPE": (lambda seed: TpeInStudies(seed, SpreadThenTPE), SPACE),
    "TPE, then CMA-ES": (TpeThenCma, LOG2),
}


def replay_sampler(
    sampler: str, pruner: str, kind: str, trials: int, seed: int
) -> dict[str, float]:
    """Run one search over the model of the curves; returns the row of its results."""
    model = curve_model(kind)
    make, space = SAMPLERS[sampler]
    rng = np.random.default_rng(seed)
    study = optuna.create_study(sampler=make(seed), pruner=PRUNERS[pruner](10))
    study.set_user_attr("seed", seed)
    study.set_user_attr("space", describe(mlp.space, mlp.BASE))
    progress, means = Progress(), []
    for begun in range(1, trials + 1):
        trial = study.ask(space)
        params = dict(trial.params)
        if space is LOG2:
            params["batch_size"] = 2 ** params["batch_size"]
        curve, mean = model.curve(params, rng)
        if _train(trial, curve, begun, progress):
            means.append(float(mean.min()))
    return {**progress.row((30, 100)), "lowest mean": min(means)}
