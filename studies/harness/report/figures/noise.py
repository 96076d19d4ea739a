"""Dev losses of seed repeats, with the 95% interval of their mean."""

from __future__ import annotations

import math

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.style import LOSS, PALETTE, label
from studies.harness.store.winner.noise import Noise


def draw_noise(ax: Axes, noise: Noise) -> None:
    """Draw a row for each repeated trial: its own loss, its repeats, and their mean.

    Args:
        ax: the axes.
        noise: from `measure_noise`.
    """
    label(ax, LOSS)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)
    groups = noise.groups
    rows = np.arange(len(groups))
    ax.errorbar(
        [group.mean if math.isfinite(group.mean) else math.nan for group in groups],
        rows,
        xerr=[group.margin for group in groups],
        fmt="|",
        color=PALETTE["ink"],
        capsize=4,
        markersize=16,
        zorder=2,
        label="mean of the repeats, 95% interval",
    )
    ax.scatter(
        [loss for group in groups for loss in group.losses],
        np.repeat(rows, [group.n for group in groups]),
        s=30,
        color=PALETTE["main"],
        zorder=3,
        label="seed repeat",
    )
    ax.scatter(
        [group.own for group in groups],
        rows,
        s=46,
        marker="D",
        facecolors="none",
        edgecolors=PALETTE["best"],
        linewidths=1.8,
        zorder=4,
        label="the trial itself",
    )
    ax.set_yticks(rows, [f"trial {group.trial}" for group in groups])
    ax.set_ylim(max(2.0, len(rows)) - 0.4, -0.6)  # the best on top
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
