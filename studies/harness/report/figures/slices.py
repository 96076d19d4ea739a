"""Scatter plots over one parameter: dev loss by parameter, and the best lr by another parameter."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.losses import (
    N_BEST,
    color_levels,
    draw_losses,
    jitter,
    marker_area,
)
from studies.harness.report.figures.style import LEVELS, LOSS, PALETTE, label, say
from studies.harness.report.results import Results
from studies.harness.report.scales import Scale

JITTER = 0.03  # as a share of the axis
N_BINS = 5  # of a range with many values


def draw_slice(ax: Axes, results: Results, name: str) -> None:
    """Draw the dev loss of each trial over one parameter, with the best five highlighted."""
    label(ax, name, LOSS)
    scale = Scale.drawn(name, results.space[name])
    trials = results.drawn()
    trials = trials[trials[name].notna()] if name in trials else trials[:0]
    if not len(trials):
        return say(ax, f"No trial with {name} has ended yet.")
    x = scale.unit(trials[name])
    if scale.few:
        x = x + jitter(trials, JITTER)
    draw_losses(ax, trials, x)

    # Trials are sorted by dev loss.
    has_loss = trials.dev_loss.notna().to_numpy()
    best = has_loss & (has_loss.cumsum() <= N_BEST)
    if best.any():
        ax.scatter(
            x[best],
            trials.dev_loss[best],
            s=44,
            color=PALETTE["best"],
            zorder=4,
            label=f"best {N_BEST}",
        )
    _set_x_axis(ax, scale)


def draw_best_lr(ax: Axes, results: Results, other: str) -> None:
    """Draw the lr of each trial over another parameter; the stronger its colour, the better.

    A line connects the best trial of each value, or of each fifth of a range with many values.
    """
    label(ax, other, "lr")
    x_scale = Scale.drawn(other, results.space[other])
    y_scale = Scale.drawn("lr", results.space["lr"])
    trials = results.drawn()[::-1]  # the best is drawn last
    trials = trials[trials.dev_loss.notna()]
    x = x_scale.unit(trials[other])
    y = y_scale.unit(trials.lr)
    if x_scale.few:
        x = x + jitter(trials, JITTER)
    level_of = color_levels(len(trials))
    for level, colour in enumerate(LEVELS):
        rows = level_of == level
        size = marker_area(20 + 5 * level, len(x))
        points = ax.scatter(x[rows], y[rows], s=size, color=colour, zorder=2 + level)
        values = zip(trials.lr[rows], trials[other][rows], trials.dev_loss[rows], strict=True)
        points.set_urls([f"lr {lr:.3g}, {other} {v:g}: {loss:.4f}" for lr, v, loss in values])

    # The line is that of all trials, also if fewer are drawn.
    x = x_scale.unit(results.measured[other])
    y = y_scale.unit(results.measured.lr)
    bins = np.round(x, 6) if x_scale.few else np.minimum((x * N_BINS).astype(int), N_BINS - 1)
    _, best = np.unique(bins, return_index=True)  # the first row of a bin is its best
    ax.plot(
        x[best],
        y[best],
        "o-",
        color=PALETTE["best"],
        linewidth=1.6,
        markersize=6,
        zorder=9,
        fillstyle="none",
    )
    _set_x_axis(ax, x_scale)
    ax.set_ylim(-0.05, 1.05)
    ticks = y_scale.ticks()
    ax.set_yticks([place for place, _ in ticks], [text for _, text in ticks])


def _set_x_axis(ax: Axes, scale: Scale) -> None:
    ax.set_xlim(-0.06, 1.06)
    ticks = scale.ticks()
    ax.set_xticks([place for place, _ in ticks], [text for _, text in ticks])
