"""Dev losses of seed repeats, with the 95% interval of their mean."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes

from studies.harness.report.figures.style import LOSS, PALETTE, label
from studies.harness.report.judge.noise import Noise

if TYPE_CHECKING:
    import pandas as pd


def draw_noise(ax: Axes, noise: Noise, repeats: pd.DataFrame) -> None:
    """Draw a row for each repeated trial: its own loss, its repeats, and their mean.

    Args:
        ax: the axes.
        noise: from `measure_noise`.
        repeats: the seed repeats, columns repeat_of, state and dev_loss.
    """
    label(ax, LOSS)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)
    groups = noise.groups
    rows = np.arange(len(groups))
    ax.errorbar(
        groups["mean"],
        rows,
        xerr=groups.margin,
        fmt="|",
        color=PALETTE["ink"],
        capsize=4,
        markersize=16,
        zorder=2,
        label="mean of the repeats, 95% interval",
    )
    complete = repeats[(repeats.state == "COMPLETE") & repeats.dev_loss.notna()]
    row_of = dict(zip(groups.trial, rows, strict=True))
    ax.scatter(
        complete.dev_loss,
        [row_of[int(trial)] for trial in complete.repeat_of],
        s=30,
        color=PALETTE["main"],
        zorder=3,
        label="seed repeat",
    )
    ax.scatter(
        groups.own,
        rows,
        s=46,
        marker="D",
        facecolors="none",
        edgecolors=PALETTE["best"],
        linewidths=1.8,
        zorder=4,
        label="the trial itself",
    )
    ax.set_yticks(rows, [f"trial {trial}" for trial in groups.trial])
    ax.set_ylim(max(2.0, len(rows)) - 0.4, -0.6)  # the best on top
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)
