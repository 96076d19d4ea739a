"""Training curves, best steps, and how well early losses predict the final ones."""

from __future__ import annotations

import math
from collections.abc import Container
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from studies.harness.report.figures.losses import (
    draw_legend,
    highest_inlier,
    loss_window,
    marker_area,
)
from studies.harness.report.figures.style import LOSS, PALETTE, THOUSANDS, label, say
from studies.harness.report.judge.budget import LATE
from studies.harness.report.judge.pruning import RankCorrelation, losses_at
from studies.harness.report.results import Results
from studies.harness.report.thinned import MAX_LINES

if TYPE_CHECKING:
    import pandas as pd

N_BINS = 10  # of the histogram of best steps


def draw_training(ax: Axes, results: Results) -> None:
    """Draw the dev loss of each trial by training step, the winner on top."""
    label(ax, "training step", LOSS)
    drawn = results.drawn(MAX_LINES)
    points = results.points[results.points.trial.isin(drawn.trial)]
    if not len(points) or not len(results.measured):
        return say(ax, "Nothing was evaluated yet.")
    assert results.winner is not None
    best = results.winner.number
    lines = _group_lines(points, set(results.complete.trial), best)

    def add(kind: str, name: str, width: float, zorder: int, alpha: float = 1.0) -> None:
        if lines[kind]:
            collection = LineCollection(
                lines[kind], colors=PALETTE[kind], linewidths=width, zorder=zorder, alpha=alpha
            )
            collection.set_label(name)
            ax.add_collection(collection)

    add("pruned", "pruned", width=0.9, zorder=2)
    add("main", "complete", width=1.0, zorder=3, alpha=0.55)
    add("best", f"trial {best}, the winner", width=2.4, zorder=4)

    # Trials that end above the window would stretch the axis, however many they are.
    inside = drawn[drawn.dev_loss <= loss_window(drawn)[1]]
    shown = points.dev_loss[points.trial.isin(inside.trial)]
    low = float(shown.min())
    high = float(np.quantile(shown, 0.9))
    ax.set_ylim(low - 0.04 * (high - low), max(high, low + 0.01))
    ax.set_xlim(0, points.step.max() * 1.01)
    ax.xaxis.set_major_formatter(THOUSANDS)
    draw_legend(ax)


def _group_lines(
    points: pd.DataFrame, complete: Container[int], best: int
) -> dict[str, list[np.ndarray]]:
    """Return the curves (evaluations, 2) of step and dev loss, by the colour of their trial."""
    points = points.sort_values("trial", kind="stable")
    numbers, begins = np.unique(points.trial.to_numpy(), return_index=True)
    curves = np.split(points[["step", "dev_loss"]].to_numpy(), begins[1:])
    lines: dict[str, list[np.ndarray]] = {"pruned": [], "main": [], "best": []}
    for trial, curve in zip(numbers, curves, strict=True):
        kind = "main" if trial in complete else "pruned"
        lines["best" if trial == best else kind].append(curve)
    return lines


def draw_best_steps(ax: Axes, results: Results, max_steps: int) -> None:
    """Draw a histogram of the best steps of the complete trials, as shares of all steps."""
    label(ax, f"best step (share of {max_steps:,} steps)", "complete trials")
    complete = results.complete
    if not len(complete):
        return say(ax, "No trial is complete.")
    shares = complete.best_step.astype(float).to_numpy() / max_steps
    # A share at an edge between two bins belongs to the lower one.
    counts, edges = np.histogram(shares - 1e-9, bins=N_BINS, range=(0, 1))
    left = edges[:-1]
    late = left >= LATE - 1e-9
    width = 0.9 / N_BINS
    ax.bar(left[~late], counts[~late], width=width, align="edge", color=PALETTE["main"])
    ax.bar(
        left[late],
        counts[late],
        width=width,
        align="edge",
        color=PALETTE["best"],
        label="in the last quarter",
    )
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1))


def draw_rank_correlation(ax: Axes, results: Results, rank: RankCorrelation) -> None:
    """Draw the final dev loss of the complete trials over the one at an earlier step."""
    label(ax, f"dev loss at step {rank.step:,}", "final dev loss")
    _, early = losses_at(results.points, rank.step)
    drawn = results.drawn()
    complete = drawn[drawn.state == "COMPLETE"]
    final = complete.set_index("trial").dev_loss.to_frame("final")
    losses = final.join(early.rename("early"), how="inner")
    if len(losses) < 3:
        return say(ax, f"{len(losses)} complete trials are too few.")
    low, high = loss_window(drawn)
    # A trial that began far above the others would stretch the horizontal axis.
    early_high = highest_inlier(losses.early.to_numpy(), losses.early.min())
    losses = losses[(losses.final <= high) & (losses.early <= early_high)]
    area = marker_area(26, len(losses))
    points = ax.scatter(losses.early, losses.final, s=area, color=PALETTE["main"], zorder=3)
    rows = losses[["early", "final"]].itertuples()
    points.set_urls([f"trial {n}: {early:.4f}, then {final:.4f}" for n, early, final in rows])
    ax.set_ylim(low - 0.05 * (high - low), high)
    title = "no rank correlation"
    if not math.isnan(rank.correlation):
        title = f"rank correlation {rank.correlation:.2f}"
    ax.set_title(title, pad=8)
