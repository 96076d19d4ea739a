"""Best dev loss so far: by trial, and by steps or seconds."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from studies.harness.report.best_so_far import AXES
from studies.harness.report.figures.losses import draw_legend, draw_losses, loss_window
from studies.harness.report.figures.style import LOSS, PALETTE, THOUSANDS, label, say
from studies.harness.report.judge.stopping import QUARTER, order_trials
from studies.harness.report.results import Results

if TYPE_CHECKING:
    import pandas as pd


def draw_history(ax: Axes, results: Results) -> None:
    """Draw the dev loss of each trial by its number, and the best so far."""
    which = results.which_drawn().capitalize()
    label(ax, "trial", LOSS, f"{which}, and the best so far")
    if not len(results.trials):
        return say(ax, "No trial has ended yet.")
    trials = results.drawn().sort_values("trial")
    draw_losses(ax, trials, trials.trial.to_numpy(float))

    last = results.trials.trial.max()
    measured = trials[trials.dev_loss.notna()]
    if len(measured):
        best = np.minimum.accumulate(measured.dev_loss.to_numpy())
        ax.step(
            [*measured.trial, last],
            [*best, best[-1]],
            where="post",
            color=PALETTE["best"],
            linewidth=2,
            label="best so far",
        )
    ax.set_xlim(-0.5, max(9.5, last + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    draw_legend(ax)


def draw_best_so_far(ax: Axes, curve: pd.DataFrame, axis: str, highest: float = math.inf) -> None:
    """Draw the best dev loss so far over a column of the curve.

    Args:
        ax: the axes.
        curve: from `best_so_far`.
        axis: "steps" or "seconds".
        highest: loss above which the curve leaves the figure, see `loss_window`.
    """
    label(ax, AXES[axis], "best " + LOSS)
    if len(curve) < 2:
        return say(ax, "Nothing was evaluated yet.")
    x = curve[axis].to_numpy(float)
    best = curve.best.to_numpy()
    ax.step(x, best, where="post", color=PALETTE["best"], linewidth=2)

    improved = np.r_[True, best[1:] < best[:-1]]
    points = ax.scatter(x[improved], best[improved], s=14, color=PALETTE["best"], zorder=3)
    values = zip(best[improved], x[improved], strict=True)
    points.set_urls([f"{loss:.4f} at {value:,.0f} {axis}" for loss, value in values])

    # The losses of the first twentieth of the search would flatten the rest of the curve.
    high = float(best[np.searchsorted(x, x[0] + (x[-1] - x[0]) / 20)])
    _set_y_axis(ax, best[-1], min(high, highest))
    ax.set_xlim(0, x[-1] * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(THOUSANDS)


def draw_best_by_trial(ax: Axes, results: Results, noise_sd: float | None = None) -> None:
    """Draw the best final dev loss so far by number of trials, in the order of their numbers.

    Args:
        ax: the axes.
        results: of the study.
        noise_sd: standard deviation of the dev loss between seeds, drawn as a line above the best.
    """
    label(ax, "trials", "best " + LOSS)
    order = order_trials(results.trials)
    if order.loss.notna().sum() < 2:
        return say(ax, "Fewer than two trials are complete.")
    n = len(order)
    best = order.best.to_numpy()
    if noise_sd is not None:
        ax.axhline(
            best[-1] + noise_sd,
            color=PALETTE["muted"],
            linewidth=1.2,
            linestyle=":",
            label="best + noise (1 sd)",
        )
    _draw_order(ax, order)

    # The losses of the first tenth of the trials would flatten the rest of the curve.
    high = min(float(np.nanmax(best[n // 10 :])), loss_window(results.trials)[1])
    _set_y_axis(ax, best[-1], max(high, best[-1] + (noise_sd or 0.0)))
    ax.set_xlim(0, n * 1.01)
    _mark_last_quarter(ax, n)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.9))


def _set_y_axis(ax: Axes, low: float, high: float) -> None:
    span = max(0.01, high - low)
    ax.set_ylim(low - 0.06 * span, high + 0.1 * span)


def _draw_order(ax: Axes, order: pd.DataFrame) -> None:
    """Draw the best so far of trials in order, with a point at each improvement."""
    best = order.best.to_numpy()
    numbers = np.arange(1, len(order) + 1)
    ax.step(
        numbers,
        best,
        where="post",
        color=PALETTE["best"],
        linewidth=2.4,
        label="best so far",
    )
    # A comparison with nan is false, so the first loss counts as an improvement.
    improved = np.r_[True, ~(best[1:] >= best[:-1])] & ~np.isnan(best)
    points = ax.scatter(numbers[improved], best[improved], s=18, color=PALETTE["best"], zorder=3)
    rows = order[improved].itertuples()
    points.set_urls([f"trial {row.trial}: {row.best:.4f}" for row in rows])


def _mark_last_quarter(ax: Axes, n: int) -> None:
    """Shade and label the last quarter of n trials."""
    quarter = max(1, int(n * QUARTER))
    ax.axvspan(n - quarter, n, color=PALETTE["best"], alpha=0.1, linewidth=0)
    ax.annotate(
        "last quarter",
        (n, 1),
        (-6, -2),
        xycoords=("data", "axes fraction"),
        textcoords="offset points",
        ha="right",
        va="top",
        color=PALETTE["best"],
    )
