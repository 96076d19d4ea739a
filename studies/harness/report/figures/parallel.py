"""Parallel coordinates: a vertical axis for each parameter, and a line for each trial."""

from __future__ import annotations

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection

from studies.harness.report.figures.losses import color_levels, jitter, loss_window
from studies.harness.report.figures.style import LEVELS, PALETTE, say
from studies.harness.report.results import Results
from studies.harness.report.scales import Scale
from studies.harness.report.thinned import MAX_LINES

N_LOSS_TICKS = 5

Ticks = list[tuple[float, str]]  # position from 0 to 1, and label


def draw_parallel(ax: Axes, results: Results) -> None:
    """Draw a line for each measured trial through its parameters to its dev loss.

    Parameters are ordered by importance. The stronger the colour of a line, the better its trial.
    """
    ax.set_title(f"Parameters and dev loss of {results.which_drawn(MAX_LINES)}", pad=34)
    drawn = results.drawn(MAX_LINES)
    measured = drawn[drawn.dev_loss.notna()]
    names = _complete_params(results)
    if len(measured) < 2 or not names:
        return say(
            ax,
            f"Nothing to compare: {len(measured)} measured trials, {len(names)} parameters.",
        )
    assert results.winner is not None
    is_winner = measured.trial == results.winner.number
    trials = measured.loc[[*measured.index[~is_winner][::-1], *measured.index[is_winner]]]
    scales = [Scale.drawn(name, results.space[name]) for name in names]
    low, high = loss_window(trials)

    offset = jitter(trials, 0.025)
    columns = []
    for name, scale in zip(names, scales, strict=True):
        y = scale.unit(trials[name])
        columns.append(y + offset if scale.few else y)
    losses = (trials.dev_loss.to_numpy() - low) / (high - low)
    columns.append(np.minimum(losses, 1.03))
    _draw_lines(ax, np.column_stack(columns))

    ticks = [scale.ticks() for scale in scales]
    _draw_vertical_axes(ax, [*names, "dev loss"], [*ticks, _loss_ticks(low, high)])


def _complete_params(results: Results) -> list[str]:
    """Return the parameters that each measured trial has, the most important first."""
    rest = [name for name in results.space if name not in results.importances]
    measured = results.measured
    return [
        name
        for name in [*results.importances, *rest]
        if name in measured and measured[name].notna().all()
    ]


def _draw_lines(ax: Axes, heights: np.ndarray) -> None:
    """Draw each row of heights (trials, axes) as a line, from the worst trial to the winner."""
    level_of = color_levels(len(heights))
    x = np.arange(heights.shape[1])
    for level, colour in enumerate(LEVELS):
        lines = [np.column_stack([x, row]) for row in heights[level_of == level]]
        width = 2.0 if level == len(LEVELS) - 1 else 1.1
        ax.add_collection(LineCollection(lines, colors=colour, linewidths=width, zorder=2 + level))
    ax.plot(heights[-1], color=PALETTE["best"], linewidth=2.4, zorder=8)


def _loss_ticks(low: float, high: float) -> Ticks:
    digits = 2 if high - low > 0.1 else 3
    losses = np.linspace(low, high, N_LOSS_TICKS)
    return [((loss - low) / (high - low), f"{loss:.{digits}f}") for loss in losses]


def _draw_vertical_axes(ax: Axes, names: list[str], ticks: list[Ticks]) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.02 * len(names), len(names) - 1 + 0.05 * len(names))
    ax.set_ylim(-0.05, 1.05)
    halo = {"facecolor": PALETTE["surface"], "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    for x, (name, marks) in enumerate(zip(names, ticks, strict=True)):
        ax.plot([x, x], [-0.02, 1.02], color=PALETTE["muted"], linewidth=1, zorder=9)
        ax.text(x, 1.07, name, ha="center", fontweight="bold")
        for y, text in marks:
            ax.annotate(
                text,
                (x, y),
                xytext=(5, 0),
                textcoords="offset points",
                va="center",
                fontsize=9.5,
                zorder=10,
                bbox=halo,
            )
