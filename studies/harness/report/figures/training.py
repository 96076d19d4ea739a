"""Pictures of a study's course: what it had found when, how its trials trained, what chance and early losses tell."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import FuncFormatter, MaxNLocator

from studies.harness.report.best_so_far import AXES
from studies.harness.report.figures.search import loss_window
from studies.harness.report.figures.style import LEVELS, LOSS, PALETTE, label, say
from studies.harness.report.judge.budget import LATE
from studies.harness.report.judge.noise import Noise
from studies.harness.report.judge.pruning import RankCorrelation, losses_at
from studies.harness.report.results import Results
from studies.harness.report.scales import Scale

if TYPE_CHECKING:
    import pandas as pd

_THOUSANDS = FuncFormatter(lambda value, _: f"{value:,.0f}")


def draw_best_so_far(ax: Axes, curve: pd.DataFrame, axis: str) -> None:
    """The best dev loss so far against trials, steps or seconds."""
    label(ax, AXES[axis], "best " + LOSS)
    if len(curve) < 2:
        return say(ax, "Nothing was evaluated yet.")
    x, best = curve[axis].to_numpy(float), curve.best.to_numpy()
    ax.step(x, best, where="post", color=PALETTE["best"], linewidth=2)
    improved = np.r_[True, best[1:] < best[:-1]]
    points = ax.scatter(x[improved], best[improved], s=14, color=PALETTE["best"], zorder=3)
    points.set_urls(
        [f"{b:.4f} at {v:,.0f} {axis}" for b, v in zip(best[improved], x[improved], strict=True)]
    )
    # From where a twentieth of the search was done: what came before would flatten the rest.
    high = float(best[np.searchsorted(x, x[0] + (x[-1] - x[0]) / 20)])
    span = max(0.01, high - best[-1])
    ax.set_ylim(best[-1] - 0.06 * span, high + 0.1 * span)
    ax.set_xlim(0, x[-1] * 1.02)
    ax.xaxis.set_major_locator(MaxNLocator(5))
    ax.xaxis.set_major_formatter(_THOUSANDS)


def draw_training(ax: Axes, results: Results) -> None:
    """Dev loss against the step for every trial: pruned ones grey, the best one on top."""
    label(ax, "training step", LOSS)
    points = results.points[results.points.trial.isin(results.trials.trial)]
    if not len(points):
        return say(ax, "Nothing was evaluated yet.")
    complete = set(results.complete.trial)
    best = results.measured.trial.iloc[0]
    lines: dict[str, list[np.ndarray]] = {"pruned": [], "main": [], "best": []}
    for trial, group in points.groupby("trial"):
        kind = "best" if trial == best else "main" if trial in complete else "pruned"
        lines[kind].append(group[["step", "dev_loss"]].to_numpy())
    for i, (kind, width) in enumerate({"pruned": 0.9, "main": 1.0, "best": 2.4}.items()):
        name = {"pruned": "pruned", "main": "complete", "best": f"trial {best}"}[kind]
        if lines[kind]:
            style = {
                "linewidths": width,
                "zorder": 2 + i,
                "label": name,
                "alpha": 0.55 if kind == "main" else 1.0,
            }
            ax.add_collection(LineCollection(lines[kind], colors=PALETTE[kind], **style))  # type: ignore[arg-type]
    low, top = float(points.dev_loss.min()), float(np.quantile(points.dev_loss, 0.9))
    ax.set_ylim(low - 0.04 * (top - low), max(top, low + 0.01))
    ax.set_xlim(0, points.step.max() * 1.01)
    ax.xaxis.set_major_formatter(_THOUSANDS)
    ax.legend(loc="upper right")


def draw_best_lr(ax: Axes, results: Results, other: str) -> None:
    """Where the good learning rates lie for each value of another parameter; the darker, the better the trial."""
    label(ax, other, "lr")
    trials = results.measured[::-1]  # the best are drawn last
    across, up = Scale.drawn(other, results.space[other]), Scale.drawn("lr", results.space["lr"])
    x, y = across.unit(trials[other]), up.unit(trials.lr)
    level = np.digitize(np.linspace(0, 1, len(trials)), [0.2, 0.5, 0.75, 0.9])
    spread = (trials.trial.to_numpy(float) * 0.618 % 1 - 0.5) * 0.03 * across.few
    for i, colour in enumerate(LEVELS):
        rows = level == i
        points = ax.scatter((x + spread)[rows], y[rows], s=20 + 5 * i, color=colour, zorder=2 + i)
        tips = zip(trials.lr[rows], trials[other][rows], trials.dev_loss[rows], strict=True)
        points.set_urls([f"lr {lr:.3g}, {other} {value:g}: {loss:.4f}" for lr, value, loss in tips])
    # The best trial of each column: of each value, or of each fifth of the range.
    column = np.round(x, 6) if across.few else np.minimum((x * 5).astype(int), 4)
    last = {value: i for i, value in enumerate(column)}  # trials stand from worst to best
    at = [last[value] for value in sorted(last)]
    ax.plot(
        x[at],
        y[at],
        "o-",
        color=PALETTE["best"],
        linewidth=1.6,
        markersize=6,
        zorder=9,
        fillstyle="none",
    )
    ax.set_xlim(-0.06, 1.06)
    ax.set_ylim(-0.05, 1.05)
    ax.set_xticks([tick for tick, _ in across.ticks()], [text for _, text in across.ticks()])
    ax.set_yticks([tick for tick, _ in up.ticks()], [text for _, text in up.ticks()])


def draw_noise(ax: Axes, noise: Noise, repeats: pd.DataFrame) -> None:
    """Each repeated config's losses: its own (a diamond), its repeats (dots), their mean and its 95% interval."""
    label(ax, LOSS)
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)
    rows: list[Any] = list(noise.groups.itertuples())
    for y, row in enumerate(rows):
        losses = repeats.dev_loss[(repeats.repeat_of == row.trial) & (repeats.state == "COMPLETE")]
        first = y == 0
        marks: dict[str, Any] = {
            "fmt": "|",
            "color": PALETTE["ink"],
            "capsize": 4,
            "markersize": 16,
            "zorder": 2,
        }
        ax.errorbar(
            [row.mean], [y], xerr=[row.margin], label="mean, 95%" if first else None, **marks
        )
        ax.scatter(
            losses,
            np.full(len(losses), y),
            s=30,
            color=PALETTE["main"],
            zorder=3,
            label="repeat" * first,
        )
        own = {
            "marker": "D",
            "facecolors": "none",
            "edgecolors": PALETTE["best"],
            "linewidths": 1.8,
            "zorder": 4,
        }
        ax.scatter([row.own], [y], s=46, label="the trial's own" * first, **own)  # type: ignore[arg-type]
    ax.set_yticks(range(len(rows)), [f"trial {row.trial}" for row in rows])
    ax.set_ylim(max(2.0, len(rows)) - 0.4, -0.6)  # the best on top
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1), ncols=3)


def draw_best_steps(ax: Axes, results: Results, max_steps: int) -> None:
    """At which share of their steps the complete trials were best."""
    label(ax, f"best step (share of {max_steps:,} steps)", "complete trials")
    ended = results.complete
    if not len(ended):
        return say(ax, "No trial trained to its end.")
    at = ended.best_step.astype(float).to_numpy() / max_steps
    counts, edges = np.histogram(at - 1e-9, bins=10, range=(0, 1))
    late = edges[:-1] >= LATE - 1e-9
    ax.bar(edges[:-1][~late], counts[~late], width=0.09, align="edge", color=PALETTE["main"])
    ax.bar(
        edges[:-1][late],
        counts[late],
        width=0.09,
        align="edge",
        color=PALETTE["best"],
        label="in the last quarter",
    )
    ax.set_xlim(0, 1)
    ax.yaxis.set_major_locator(MaxNLocator(5, integer=True))
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.legend(loc="lower right", bbox_to_anchor=(1, 1))


def draw_rank_correlation(ax: Axes, results: Results, foretelling: RankCorrelation) -> None:
    """The final dev loss of the complete trials against the one they had at an earlier step."""
    label(ax, f"dev loss at step {foretelling.step:,}", "dev loss at the end")
    _, then = losses_at(results.points, foretelling.step)
    ended = (
        results.complete.set_index("trial")
        .dev_loss.to_frame("end")
        .join(then.rename("then"), how="inner")
    )
    if len(ended) < 3:
        return say(ax, f"{len(ended)} complete trials are too few.")
    low, high = loss_window(results.trials)
    ended = ended[ended.end <= high]
    points = ax.scatter(ended.then, ended.end, s=26, color=PALETTE["main"], zorder=3)
    points.set_urls(
        [f"trial {n}: {a:.4f}, then {b:.4f}" for n, a, b in ended[["then", "end"]].itertuples()]
    )
    ax.set_ylim(low - 0.05 * (high - low), high)
    known = not math.isnan(foretelling.correlation)
    ax.set_title(
        f"rank correlation {foretelling.correlation:.2f}" if known else "no rank correlation", pad=8
    )
