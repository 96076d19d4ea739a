"""Bar chart of parameter importances."""

from __future__ import annotations

from matplotlib.axes import Axes

from studies.harness.report.figures.style import PALETTE, label, say
from studies.harness.report.results import Results


def draw_importances(ax: Axes, results: Results) -> None:
    """Draw a bar for each parameter, the most important on top."""
    label(ax, "importance (PED-ANOVA)", "", "Importance of the parameters")
    importances = results.importances
    if not importances:
        return say(
            ax,
            "Too few trials to compute importances: ten are needed, five of them with a dev loss.",
        )
    names = list(importances)[::-1]
    largest = max(importances.values())
    # The limits keep the bar of a single parameter as thick as those of three.
    ax.set_ylim(min(-0.6, len(names) - 3.4), len(names) - 0.4)
    ax.barh(names, [importances[name] for name in names], height=0.6, color=PALETTE["main"])
    for y, name in enumerate(names):
        share = importances[name]
        ax.annotate(f"{share:.0%}", (share, y), (6, 0), textcoords="offset points", va="center")
    ax.set_xlim(0, largest * 1.1)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)
