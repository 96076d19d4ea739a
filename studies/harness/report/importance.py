"""Which parameters decide whether a trial is among the best: PED-ANOVA (Watanabe et al. 2023).

The same numbers as `optuna.importance`, whose import brings scikit-learn and takes a second, which a study would spend
at its end. For each parameter, the density of the best trials' values is held against that of all trials' values by
their Pearson divergence: where the best are spread like all, the parameter does not matter.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

GRID = 50  # cells of a range
BEST = 0.1  # share of the trials that are taken for the best ...
AT_LEAST = 5  # ... but so many, since a density is estimated from them
FEWEST = 10  # trials below which nothing can be said


def importances(
    losses: Sequence[float], params: Sequence[dict[str, Any]], space: dict[str, BaseDistribution]
) -> dict[str, float]:
    """The importance of each parameter, largest first; they sum to 1.

    The order of the losses alone decides, so that pruned and diverged trials can take part, with inf if need be.

    Args:
        losses: of each trial, lower is better.
        params: of each trial; all hold all parameters of `space`.
        space: the searched parameters.

    Returns:
        Empty where there are fewer than ten trials, fewer than five finite losses, or no parameters.
    """
    n, values = len(losses), np.asarray(losses, float)
    if n < FEWEST or not space or np.isfinite(values).sum() < AT_LEAST:
        return {}
    best = values <= np.sort(values)[max(math.ceil(BEST * n), AT_LEAST) - 1]
    raw = {}
    for name, distribution in space.items():
        cells, n_cells = _cells([p[name] for p in params], distribution)
        categorical = isinstance(distribution, CategoricalDistribution)
        density = _density_of_choices if categorical else _density
        all_of, best_of = (
            density(np.bincount(c, minlength=n_cells)) + 1e-12 for c in (cells, cells[best])
        )
        raw[name] = float(all_of @ (best_of / all_of - 1) ** 2)  # Pearson divergence
    total = sum(raw.values())
    shares = {name: value / total if total > 0 else 1 / len(raw) for name, value in raw.items()}
    return dict(sorted(shares.items(), key=lambda item: -item[1]))


def _cells(values: list[Any], distribution: Any) -> tuple[np.ndarray, int]:
    """Each value's cell in the parameter's range, and the number of cells."""
    if isinstance(distribution, CategoricalDistribution):
        return np.array([int(distribution.to_internal_repr(v)) for v in values]), len(
            distribution.choices
        )
    low, high, log, step = distribution.low, distribution.high, distribution.log, distribution.step
    n_cells = GRID
    if log and step is not None:  # integers on a log axis
        n_cells = min(GRID, math.ceil(math.log2(high - low + 1)) + 1)
    elif step is not None:
        n_cells = min(GRID, round((high - low) / step) + 1)
    scale = np.log if log else np.asarray
    low, high, scaled = float(scale(low)), float(scale(high)), scale(np.asarray(values, float))
    cells = np.ceil((scaled - low) / (high - low) * (n_cells - 1) - 0.5)
    return np.clip(cells.astype(int), 0, n_cells - 1), n_cells


def _density(counts: np.ndarray) -> np.ndarray:
    """Kernel density (n_cells,) of values counted in cells: truncated normals of Scott's width, and one wide prior."""
    at = np.flatnonzero(counts)
    weights, n = counts[at], counts.sum()
    mean = at @ weights / n
    sd = math.sqrt((at - mean) ** 2 @ weights / max(1, n - 1))
    below = np.cumsum(weights)
    q1, q3 = (
        np.searchsorted(below, n // 4, side="left"),
        np.searchsorted(below, n * 3 // 4, side="right"),
    )
    quartiles = at[min(at.size - 1, q3)] - at[q1]
    width = max(
        1.059 * min(quartiles / 1.34, sd) * n**-0.2, 0.5 / 1.64
    )  # no kernel narrower than a cell
    last = counts.size - 1
    centres, widths = np.r_[at, last / 2], np.r_[np.full(at.size, width), last + 1]
    edges = np.arange(-0.5, counts.size)
    below = _normal_cdf((edges - centres[:, None]) / widths[:, None])  # (kernels, n_cells + 1)
    kernels = np.diff(below) / (below[:, -1:] - below[:, :1])
    return np.r_[weights, 1] @ kernels / (n + 1)


def _density_of_choices(counts: np.ndarray) -> np.ndarray:
    """The same for choices, which have no neighbours: a kernel is its choice and a little of all."""
    at = np.flatnonzero(counts)
    kernels = np.full((at.size + 1, counts.size), 1 / (at.size + 1))
    kernels[np.arange(at.size), at] += 1
    kernels /= kernels.sum(1, keepdims=True)
    return np.r_[counts[at], 1] @ kernels / (counts.sum() + 1)


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.reshape([math.erf(x) for x in z.ravel() / math.sqrt(2)], z.shape))
