"""The picture of a retraining: how its seeds trained, and the test loss among the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.measures import Baseline
from experiments.seeds import Replica
from studies.harness.report.figures.style import (
    LOSS,
    PALETTE,
    label,
    look,
    new_figure,
    place,
    save_png,
    say,
)

COLOURS = (PALETTE["best"], PALETTE["main"])


def draw_comparison(
    path: Path, sides: Sequence[tuple[str, list[Replica]]], rungs: Sequence[Baseline]
) -> Path:
    """Draw one or two configs, each with its seeds; returns the path."""
    with look():
        figure = new_figure(1180, 460)
        _draw_curves(place(figure, 75, 50, 460, 335), sides)
        _draw_losses(place(figure, 720, 50, 430, 335), sides, rungs)
        save_png(figure, path)
    return path


def _draw_curves(ax: Axes, sides: Sequence[tuple[str, list[Replica]]]) -> None:
    if any("dev_loss" not in replica.losses for _, replicas in sides for replica in replicas):
        return say(
            ax, "Trained on train and dev together: there is no curve of a loss on unseen words."
        )
    label(ax, "training step", LOSS, "Dev loss, a line a seed")
    ends: list[float] = []
    for colour, (name, replicas) in zip(COLOURS, sides, strict=False):
        for number, replica in enumerate(replicas):
            steps, losses = zip(
                *((p.step, p.dev_loss) for p in replica.result.history), strict=True
            )
            shown = name if number == 0 else None
            ax.plot(
                steps,
                losses,
                color=colour,
                linewidth=1.2,
                alpha=0.8,
                label=shown,
                marker="o",
                markersize=2.5,
            )
            ends += losses[len(losses) // 4 :]  # what came before would flatten the rest
    low, high = min(ends), max(ends)
    ax.set_ylim(low - 0.05 * (high - low) - 1e-4, high + 0.1 * (high - low) + 1e-4)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.legend(loc="upper right")


def _draw_losses(
    ax: Axes, sides: Sequence[tuple[str, list[Replica]]], rungs: Sequence[Baseline]
) -> None:
    label(ax, "test loss (nats per character)", "", "Test loss beside counting")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)
    names: list[str] = []
    for rung in rungs:
        if "test_loss" in rung.losses:
            loss = rung.losses["test_loss"]
            ax.plot([loss], [len(names)], "D", color=PALETTE["muted"], markersize=5)
            ax.annotate(
                f"{loss:.3f}",
                (loss, len(names)),
                (0, 7),
                textcoords="offset points",
                ha="center",
                fontsize=9,
            )
            names.append(rung.name)
    for colour, (name, replicas) in zip(COLOURS, sides, strict=False):
        losses = [replica.losses["test_loss"] for replica in replicas]
        mean = sum(losses) / len(losses)
        ax.plot(losses, [len(names)] * len(losses), "o", color=colour, markersize=6, alpha=0.7)
        ax.annotate(
            f"{mean:.3f}",
            (mean, len(names)),
            (0, 8),
            textcoords="offset points",
            ha="center",
            weight="bold",
        )
        names.append(name)
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.3)
    ax.margins(x=0.08)
