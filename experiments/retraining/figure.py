"""Draw a retraining: the dev loss of each seed, and the test losses next to the baselines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator

from experiments.retraining.evaluation import Baseline
from experiments.retraining.results import SeedResult
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
Side = tuple[str, list[SeedResult]]  # a config's name and its seeds


def draw_comparison(path: Path, sides: Sequence[Side], baselines: Sequence[Baseline]) -> Path:
    """Draw one or two configs, each with its seeds; returns the path."""
    with look():
        figure = new_figure(1180, 460)
        _draw_curves(place(figure, 75, 50, 460, 335), sides)
        _draw_losses(place(figure, 720, 50, 430, 335), sides, baselines)
        save_png(figure, path)
    return path


def _draw_curves(ax: Axes, sides: Sequence[Side]) -> None:
    """Draw dev loss against the step, one line per seed."""
    if any("dev_loss" not in seed.losses for _, seeds in sides for seed in seeds):
        return say(ax, "Trained on train and dev together: no loss on unseen words was measured.")

    label(ax, "training step", LOSS, "Dev loss, one line per seed")
    later_losses: list[float] = []
    for colour, (name, seeds) in zip(COLOURS, sides, strict=False):
        for number, seed in enumerate(seeds):
            steps = [point.step for point in seed.result.history]
            losses = [point.dev_loss for point in seed.result.history]
            ax.plot(
                steps,
                losses,
                color=colour,
                linewidth=1.2,
                alpha=0.8,
                label=name if number == 0 else None,
                marker="o",
                markersize=2.5,
            )
            later_losses += losses[len(losses) // 4 :]

    # The high losses of the first quarter would flatten the rest.
    low = min(later_losses)
    high = max(later_losses)
    ax.set_ylim(low - 0.05 * (high - low) - 1e-4, high + 0.1 * (high - low) + 1e-4)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    ax.legend(loc="upper right")


def _draw_losses(ax: Axes, sides: Sequence[Side], baselines: Sequence[Baseline]) -> None:
    """Draw a row of losses of the last split, test or dev, for each baseline and each config."""
    loss_name = list(sides[0][1][0].losses)[-1]
    split = loss_name.removesuffix("_loss")
    label(ax, f"{split} loss (nats per character)", "", f"{split.title()} loss and baselines")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)

    names: list[str] = []
    for baseline in baselines:
        if loss_name in baseline.losses:
            loss = baseline.losses[loss_name]
            row = len(names)
            ax.plot([loss], [row], "D", color=PALETTE["muted"], markersize=5)
            _annotate(ax, loss, row, bold=False)
            names.append(baseline.name)

    for colour, (name, seeds) in zip(COLOURS, sides, strict=False):
        losses = [seed.losses[loss_name] for seed in seeds]
        row = len(names)
        ax.plot(losses, [row] * len(losses), "o", color=colour, markersize=6, alpha=0.7)
        _annotate(ax, sum(losses) / len(losses), row, bold=True)
        names.append(name)

    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(-0.6, len(names) - 0.3)
    ax.margins(x=0.08)


def _annotate(ax: Axes, loss: float, row: int, *, bold: bool) -> None:
    """Write a loss above its point."""
    style = {"weight": "bold"} if bold else {"fontsize": 9}
    ax.annotate(
        f"{loss:.3f}",
        (loss, row),
        (0, 8 if bold else 7),
        textcoords="offset points",
        ha="center",
        **style,
    )
