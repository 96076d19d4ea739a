"""Importance of each parameter for being among the best trials: PED-ANOVA (Watanabe et al. 2023).

The numbers equal those of `optuna.importance`, which imports scikit-learn and so takes a second
that every study would spend at its end. For each parameter, the density of its values in the best
trials is compared with the density in all trials, by their Pearson divergence. If both are equal,
the parameter does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

GRID = 50  # cells into which a range is divided
BEST = 0.1  # share of the trials that count as the best ...
MIN_BEST = 5  # ... but at least this many, enough to estimate a density
MIN_TRIALS = 10  # with fewer trials no importances are returned


def importances(
    losses: Sequence[float], params: Sequence[dict[str, Any]], space: dict[str, BaseDistribution]
) -> dict[str, float]:
    """Return the importance of each parameter, largest first; they sum to 1.

    Only the order of the losses matters, so pruned and diverged trials can take part; a diverged
    trial has the loss inf.

    Args:
        losses: one for each trial, lower is better.
        params: of each trial; each has all parameters of `space`.
        space: the searched parameters.

    Returns:
        Empty with fewer than 10 trials, fewer than 5 finite losses, or no parameters.
    """
    n = len(losses)
    values = np.asarray(losses, float)
    if n < MIN_TRIALS or not space or np.isfinite(values).sum() < MIN_BEST:
        return {}
    best = values <= np.sort(values)[max(math.ceil(BEST * n), MIN_BEST) - 1]
    divergences = {
        name: _divergence([p[name] for p in params], best, distribution)
        for name, distribution in space.items()
    }
    total = sum(divergences.values())
    if total > 0:
        shares = {name: value / total for name, value in divergences.items()}
    else:
        shares = dict.fromkeys(divergences, 1 / len(divergences))
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _divergence(values: list[Any], best: np.ndarray, distribution: BaseDistribution) -> float:
    """Return the Pearson divergence between a parameter's densities in the best and all trials."""
    cells, n_cells = _cells(values, distribution)
    categorical = isinstance(distribution, CategoricalDistribution)
    density = _density_of_choices if categorical else _density
    all_trials = density(np.bincount(cells, minlength=n_cells)) + 1e-12
    best_trials = density(np.bincount(cells[best], minlength=n_cells)) + 1e-12
    return float(all_trials @ (best_trials / all_trials - 1) ** 2)


def _cells(values: list[Any], distribution: Any) -> tuple[np.ndarray, int]:
    """Return each value's cell in the parameter's range, and the number of cells."""
    if isinstance(distribution, CategoricalDistribution):
        choices = np.array([int(distribution.to_internal_repr(v)) for v in values])
        return choices, len(distribution.choices)
    span = distribution.high - distribution.low
    step = distribution.step
    n_cells = GRID
    if distribution.log and step is not None:  # integers on a log axis
        n_cells = min(GRID, math.ceil(math.log2(span + 1)) + 1)
    elif step is not None:
        n_cells = min(GRID, round(span / step) + 1)

    scale = np.log if distribution.log else np.asarray
    low = float(scale(distribution.low))
    high = float(scale(distribution.high))
    scaled = scale(np.asarray(values, float))
    cells = np.ceil((scaled - low) / (high - low) * (n_cells - 1) - 0.5)
    return np.clip(cells.astype(int), 0, n_cells - 1), n_cells


def _density(counts: np.ndarray) -> np.ndarray:
    """Estimate the density over the cells of a range from the number of values in each.

    A sum of truncated normal kernels with Scott's bandwidth, and one wide kernel as a prior.

    Args:
        counts: (n_cells,) values in each cell.

    Returns:
        (n_cells,), sums to 1.
    """
    at = np.flatnonzero(counts)
    weights = counts[at]
    n = counts.sum()
    mean = at @ weights / n
    sd = math.sqrt((at - mean) ** 2 @ weights / max(1, n - 1))
    cumulative = np.cumsum(weights)
    q1 = np.searchsorted(cumulative, n // 4, side="left")
    q3 = np.searchsorted(cumulative, n * 3 // 4, side="right")
    quartiles = at[min(at.size - 1, q3)] - at[q1]
    # No kernel is narrower than a cell.
    width = max(1.059 * min(quartiles / 1.34, sd) * n**-0.2, 0.5 / 1.64)

    last = counts.size - 1
    centres = np.r_[at, last / 2]
    widths = np.r_[np.full(at.size, width), last + 1]
    edges = np.arange(-0.5, counts.size)
    below = _normal_cdf((edges - centres[:, None]) / widths[:, None])  # (kernels, n_cells + 1)
    kernels = np.diff(below) / (below[:, -1:] - below[:, :1])
    return np.r_[weights, 1] @ kernels / (n + 1)


def _density_of_choices(counts: np.ndarray) -> np.ndarray:
    """Estimate the density over unordered choices: each kernel is a choice and a share of all."""
    at = np.flatnonzero(counts)
    kernels = np.full((at.size + 1, counts.size), 1 / (at.size + 1))
    kernels[np.arange(at.size), at] += 1
    kernels /= kernels.sum(1, keepdims=True)
    return np.r_[counts[at], 1] @ kernels / (counts.sum() + 1)


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.reshape([math.erf(x) for x in z.ravel() / math.sqrt(2)], z.shape))
