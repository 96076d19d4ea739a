"""Picture of a learning-rate range test, like the lecture's: loss against learning rate."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from makemore.lr_sweep import DEFAULT_RULE, RULES, WINDOW, LrSweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def plot_lr_sweep(sweep: LrSweep, path: Path | str, rule: str | None = None) -> Path:
    """Draw loss against learning rate with the suggestions of all rules.

    Args:
        sweep: the result of a range test.
        path: where to write; the suffix decides the format.
        rule: the rule whose suggestion is red. Default: DEFAULT_RULE.

    Returns:
        The path.

    Raises:
        UserError: the rule does not exist.
        ValueError: matplotlib does not know the suffix.
    """
    from matplotlib.figure import Figure  # takes 0.3 s to import

    chosen = DEFAULT_RULE if rule is None else rule
    sweep.suggest(chosen)  # refuses an unknown rule
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    ax = figure.subplots()
    _draw_losses(ax, sweep)
    _mark_suggestions(ax, sweep, chosen)
    _set_axes(ax, sweep)

    c = sweep.config
    sizes = (
        f"block {c.block_size}, embedding {c.n_embd}, hidden {c.n_hidden}, "
        f"batch {c.batch_size}, init {c.init}"
    )
    figure.suptitle(f"One {c.optimizer} step per learning rate: {sizes}", fontsize="medium")
    ax.legend()
    figure.savefig(path, dpi=120)
    return Path(path)


def _draw_losses(ax: Axes, sweep: LrSweep) -> None:
    """Draw the losses as points, the smoothed curve, and the learning rate of the stop."""
    points: dict[str, Any] = {"ms": 4, "alpha": 0.4, "mew": 0, "color": "tab:blue"}
    ax.plot(sweep.lrs, sweep.losses, ".", label="minibatch loss", **points)
    label = f"smoothed over {WINDOW} powers of ten"
    ax.plot(sweep.lrs, sweep.smoothed, lw=2, color="tab:blue", label=label)
    if sweep.stopped_at is not None:
        label = f"stopped: the loss grew at lr {sweep.stopped_at:.3g}"
        ax.axvline(sweep.stopped_at, color="black", ls=":", label=label)


def _set_axes(ax: Axes, sweep: LrSweep) -> None:
    """Set scales, limits, ticks and labels."""
    ax.set_xscale("log")
    first = math.ceil(2 * math.log10(sweep.lrs[0]))
    last = 2 * math.log10(sweep.lrs[-1])
    exponents = np.arange(first, last + 1e-9) / 2
    ax.set_xticks(10**exponents, [f"{10**e:.2g}\n{e:g}" for e in exponents])
    ax.set_xticks([], minor=True)

    # Losses left of the minimum decide the height; a loss that blew up would flatten the valley.
    highest_left = sweep.losses[: np.argmin(sweep.smoothed) + 1].max()
    ax.set_ylim(0, min(sweep.losses.max(), 1.5 * highest_left) * 1.05)
    ax.set(
        xlabel="learning rate, and its exponent of ten",
        ylabel="minibatch loss of the step (nats per character)",
    )


def _mark_suggestions(ax: Axes, sweep: LrSweep, chosen: str) -> None:
    """Draw a line with a name above the axes for each rule's suggestion; the chosen one is red.

    The names are lower from left to right, so a line never crosses a name.
    """
    across = ax.get_xaxis_transform()  # x in learning rates, y in heights of the axes
    suggestions = sorted((sweep.suggest(rule), rule) for rule in RULES)
    for row, (lr, rule) in enumerate(reversed(suggestions)):
        top = 1.025 + 0.045 * row
        if rule == chosen:
            text = f" {rule}: lr {lr:.3g}, exponent {math.log10(lr):.2f}"
            line: dict[str, Any] = {"color": "tab:red", "lw": 1.8}
            font: dict[str, Any] = {"color": "tab:red", "weight": "bold"}
        else:
            text = f" {rule} {lr:.2g}"
            line = {"color": "dimgray", "lw": 0.7}
            font = {"color": "dimgray", "weight": "normal"}
        ax.plot([lr, lr], [0, top], transform=across, clip_on=False, zorder=3, **line)
        ax.text(lr, top, text, transform=across, size="small", va="center", **font)
