"""Dev losses of trials as points: the range of losses to show, markers, tooltips and legend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.style import PALETTE

if TYPE_CHECKING:
    import pandas as pd

N_BEST = 5  # trials drawn in the colour of the best
# An outlier is so many times as far above the median as the median is above the lowest loss, and
# at least so many nats.
OUTLIER = (4.0, 0.1)
CROWD = 400  # markers from which on they are smaller, so that fewer hide each other ...
SMALLEST = 0.25  # ... down to this share of their area
LEVEL_RANKS = [0.2, 0.5, 0.75, 0.9]  # rank from worst to best at which the next colour level begins


def loss_window(trials: pd.DataFrame) -> tuple[float, float]:
    """Return the lowest and highest dev loss that a figure shows.

    The window covers the complete trials without outliers, which are far above the median. Pruned
    trials stopped at high losses, which would make the differences between good trials too small to
    see.

    Args:
        trials: columns state and dev_loss.
    """
    measured = trials[trials.dev_loss.notna()]
    if not len(measured):
        return 0.0, 1.0
    complete = measured[measured.state == "COMPLETE"]
    losses = (complete if len(complete) > 1 else measured).dev_loss.to_numpy()
    low = float(measured.dev_loss.min())
    high = highest_inlier(losses, low)
    return low, max(low + 1.15 * (high - low), low + 0.01)


def highest_inlier(losses: np.ndarray, low: float) -> float:
    """Return the highest of some losses that is not an outlier.

    Args:
        losses: at least one.
        low: the lowest loss to compare with, not above the median.
    """
    median = float(np.median(losses))
    factor, least = OUTLIER
    return float(losses[losses <= median + max(factor * (median - low), least)].max())


def draw_losses(ax: Axes, trials: pd.DataFrame, x: np.ndarray) -> None:
    """Draw a point at (x, dev loss) for each trial, with a marker for each outcome.

    Diverged trials and losses above `loss_window` are marked at the top.

    Args:
        ax: the axes.
        trials: N rows with columns trial, state, reason and dev_loss.
        x: (N,) horizontal positions.
    """
    low, high = loss_window(trials)
    span = high - low
    ax.set_ylim(low - 0.04 * span, high + 0.1 * span)
    if trials.dev_loss.isna().all():
        ax.set_yticks([])

    loss = trials.dev_loss.to_numpy()
    top = np.full_like(loss, high + 0.06 * span)
    diverged = trials.reason.str.startswith("diverged").to_numpy()
    above = (loss > high) & ~diverged
    inside = ~np.isnan(loss) & ~diverged & ~above
    complete = (trials.state == "COMPLETE").to_numpy()
    tooltips = np.array([tooltip(row) for row in trials.to_dict("records")])

    def scatter(kind: str, rows: np.ndarray, y: np.ndarray, colour: str, **marker: Any) -> None:
        if rows.any():
            points = ax.scatter(
                x[rows], y[rows], color=PALETTE[colour], zorder=3, label=kind, **marker
            )
            points.set_urls(tooltips[rows])

    scatter("pruned", inside & ~complete, loss, "pruned", s=marker_area(22, len(x)))
    scatter("complete", inside & complete, loss, "main", s=marker_area(28, len(x)))
    scatter("above the range", above, top, "pruned", s=marker_area(26, len(x)), marker="^")
    scatter("diverged", diverged, top, "bad", s=marker_area(34, len(x)), marker="x")


def marker_area(area: float, n: int) -> float:
    """Return the area of each of n markers: the given one, or less for more than CROWD markers."""
    return area * max(SMALLEST, min(1.0, CROWD / max(1, n)))


def tooltip(trial: dict[Any, Any]) -> str:
    """Return the text that a point shows under the mouse: trial, dev loss and why it ended."""
    loss = trial["dev_loss"]
    name = f"trial {trial['trial']}"
    if np.isnan(loss):
        return f"{name}: {trial['reason']}"
    return f"{name}: {loss:.4f}, {trial['reason']}"


def jitter(trials: pd.DataFrame, width: float) -> np.ndarray:
    """Return a small offset for each trial, so that points with equal values stay visible.

    The offset depends on the trial's number alone: multiples of the golden ratio, modulo 1, are
    spread evenly.

    Args:
        trials: with column trial.
        width: of the interval of offsets, which is centred at 0.
    """
    return (trials.trial.to_numpy(float) * 0.618 % 1 - 0.5) * width


def color_levels(n: int) -> np.ndarray:
    """Return the index into LEVELS for n trials that are sorted from worst to best."""
    return np.digitize(np.linspace(0, 1, n), LEVEL_RANKS)


def draw_legend(ax: Axes, **where: Any) -> None:
    """Draw the legend in one row above the axes; nothing if no artist has a label."""
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        where = where or {"loc": "lower right", "bbox_to_anchor": (1, 1)}
        ax.legend(handles, labels, ncols=len(labels), borderaxespad=0.2, **where)
