"""Replays a pruner with audits over real learning curves, so that the right verdict is known.

`curves_five.csv.gz` has 300 trials of a search by TPE without pruning, in their order: five
parameters, SGD with a step schedule that drops lr at half of 5,000 steps. `dev_1` to `dev_20` are
dev losses of the weights, `average_1` to `average_20` those of their running average.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.pruners import BasePruner
from optuna.trial import TrialState

from studies.harness.search.pruners import is_audited
from tests.conftest import ROOT

FIVE = Path(__file__).with_name("curves_five.csv.gz")
WIDE = ROOT / "tests" / "benchmarks" / "learning_curves.csv.gz"  # 300 trials, eight parameters


@cache
def read_curves(path: Path, kind: str = "dev") -> np.ndarray:
    """Return (N, 20) dev losses of N trials; inf after divergence."""
    frame = pd.read_csv(path)
    return frame[[f"{kind}_{i}" for i in range(1, 21)]].fillna(np.inf).to_numpy()


def replay(curves: np.ndarray, pruner: BasePruner, share: float, seed: int = 0) -> pd.DataFrame:
    """Train the curves one after the other; returns the table that the verdicts read.

    The column `final` is the dev loss of the trial without pruning.

    Args:
        curves: (N, P) dev losses.
        pruner: asked at each point but the last.
        share: of the trials to prune that are audited.
        seed: of the study.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(pruner=pruner)
    rows = []
    for number, curve in enumerate(curves):
        trial = study.ask()
        state, reason, audited, seen = train(trial, curve, share, seed)
        best = min(seen, default=np.nan)
        study.tell(trial, best if state == TrialState.COMPLETE else None, state=state)
        rows.append([trial.number, number, state.name, reason, best, audited, min(curve)])
    columns = ["trial", "started", "state", "reason", "dev_loss", "audited", "final"]
    return pd.DataFrame(rows, columns=columns).assign(finishes=np.nan, origin=None)


def train(
    trial: optuna.Trial, curve: np.ndarray, share: float, seed: int
) -> tuple[TrialState, str, float, list[float]]:
    """Return state, reason, audited step (nan if none) and the dev losses of one trial."""
    audited = np.nan
    seen: list[float] = []
    for step, loss in enumerate(curve, start=1):
        if not np.isfinite(loss):
            return TrialState.PRUNED, f"diverged at step {step}", audited, seen
        trial.report(loss, step)
        seen.append(loss)
        if step == len(curve) or not np.isnan(audited) or not trial.should_prune():
            continue
        if not is_audited(seed, trial.number, share):
            return TrialState.PRUNED, "pruned", audited, seen
        audited = step
    return TrialState.COMPLETE, "finished", audited, seen


def lost_of_best(trials: pd.DataFrame, n: int) -> int:
    """Return how many of the n trials that would be the best were pruned."""
    best = trials.nsmallest(n, "final")
    return int((best.reason == "pruned").sum())
