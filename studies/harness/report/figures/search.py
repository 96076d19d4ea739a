"""The pictures of a search: its history, its parameters, and which of them matter."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator

from studies.harness.report.figures.style import (
    LEVELS,
    LOSS,
    PALETTE,
    label,
    look,
    new_figure,
    place,
    save_png,
    say,
)
from studies.harness.report.judge.stopping import expected_best, order_trials
from studies.harness.report.results import Results
from studies.harness.report.scales import Scale

if TYPE_CHECKING:
    import pandas as pd

N_BEST = 5  # trials that stand out in a picture


def write_pictures(results: Results, folder: Path) -> None:
    """Write history.png, importances.png, parallel.png and slices.png; each says why when it has nothing to show."""
    with look():
        figure = new_figure(1200, 480)
        draw_history(place(figure, 90, 45, 1080, 370), results)
        save_png(figure, folder / "history.png")

        height = 46 * max(3, len(results.space))
        figure = new_figure(1200, height + 110)
        draw_importances(place(figure, 150, 45, 1010, height), results)
        save_png(figure, folder / "importances.png")

        figure = new_figure(1200, 520)
        draw_parallel(place(figure, 60, 70, 1090, 400), results)
        save_png(figure, folder / "parallel.png")

        rows = max(1, -(-len(results.space) // 3))
        figure = new_figure(1200, 50 + 330 * rows)
        for i, name in enumerate(results.space):
            ax = place(figure, 90 + 390 * (i % 3), 50 + 330 * (i // 3), 300, 250)
            draw_slice(ax, results, name)
            if i == 0:
                _legend(ax, loc="lower left", bbox_to_anchor=(-0.25, 1.04))
        if not results.space:
            say(place(figure, 75, 50, 1050, 250), "No parameter was searched.")
        save_png(figure, folder / "slices.png")


def draw_history(ax: Axes, results: Results) -> None:
    """Dev loss of each trial in the order of their numbers, and the best so far."""
    label(ax, "trial", LOSS, "Every trial, and the best so far")
    if not len(results.trials):
        return say(ax, "No trial has ended yet.")
    trials = results.trials.sort_values("trial")
    _draw_losses(ax, trials, trials.trial.to_numpy(float))
    measured = trials[trials.dev_loss.notna()]
    if len(measured):
        last = trials.trial.max()
        numbers, best = [*measured.trial, last], [*np.minimum.accumulate(measured.dev_loss)]
        ax.step(
            numbers,
            [*best, best[-1]],
            where="post",
            color=PALETTE["best"],
            linewidth=2,
            label="best so far",
        )
    ax.set_xlim(-0.5, max(9.5, trials.trial.max() + 0.5))
    ax.xaxis.set_major_locator(MaxNLocator(integer=True))
    _legend(ax)


def draw_search(ax: Axes, results: Results, noise_sd: float | None = None) -> None:
    """The best so far against the number of trials, over what a blind draw of them gives, up to twice as many."""
    label(ax, "trials", "best " + LOSS)
    order = order_trials(results.trials)
    if order.loss.notna().sum() < 2:
        return say(ax, "Fewer than two trials were measured.")
    n, best, blind = len(order), order.best.to_numpy(), expected_best(order)
    for part, alpha in ((blind[blind.trials <= n], 0.8), (blind[blind.trials >= n], 0.5)):
        area: dict[str, Any] = {"color": PALETTE["level2"], "alpha": alpha, "linewidth": 0}
        ax.fill_between(
            part.trials,
            part.low,
            part.high,
            label="blind draw, 90%" if alpha == 0.8 else None,
            **area,
        )
    ax.plot(
        blind.trials, blind["mean"], color=PALETTE["main"], linewidth=1.4, label="blind draw, mean"
    )
    if noise_sd is not None:
        ax.axhline(
            best[-1] + noise_sd,
            color=PALETTE["muted"],
            linewidth=1.2,
            linestyle=":",
            label="best + seed noise",
        )
    ax.step(
        [*range(1, n + 1)],
        best,
        where="post",
        color=PALETTE["best"],
        linewidth=2.4,
        label="this study",
    )
    fell = np.r_[True, ~(best[1:] >= best[:-1])] & ~np.isnan(best)
    points = ax.scatter(np.flatnonzero(fell) + 1, best[fell], s=18, color=PALETTE["best"], zorder=3)
    points.set_urls([f"trial {row.trial}: {row.best:.4f}" for row in order[fell].itertuples()])
    # What the first trials had would flatten the rest.
    high = max(float(np.nanmax(best[n // 10 :])), float(blind.high[blind.trials >= n / 4].max()))
    span = max(0.01, high - best[-1])
    ax.set_ylim(best[-1] - 0.06 * span, high + 0.06 * span)
    ax.set_xlim(0, blind.trials.iloc[-1] * 1.01)
    _mark_quarter(ax, n)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.legend(loc="upper right", bbox_to_anchor=(1, 0.9))


def _mark_quarter(ax: Axes, n: int) -> None:
    """Shade the last quarter of n trials, and name what is left and right of their end."""
    ax.axvspan(n - max(1, n // 4), n, color=PALETTE["best"], alpha=0.1, linewidth=0)
    ax.axvline(n, color=PALETTE["muted"], linewidth=1, linestyle=(0, (4, 3)))
    where: dict[str, Any] = {
        "xycoords": ("data", "axes fraction"),
        "textcoords": "offset points",
        "va": "top",
    }
    ax.annotate("last quarter", (n, 1), (-6, -2), ha="right", color=PALETTE["best"], **where)
    ax.annotate("as many again, drawn blindly", (n, 1), (6, -2), color=PALETTE["muted"], **where)


def draw_importances(ax: Axes, results: Results) -> None:
    """A bar for each parameter."""
    label(ax, "importance: share in telling the best trials (PED-ANOVA)", "", "What matters")
    shares = results.importances
    if not shares:
        return say(
            ax,
            "Too few trials to tell which parameters matter: it takes ten, of which five have a dev loss.",
        )
    names = list(shares)[::-1]
    ax.set_ylim(
        min(-0.6, len(names) - 3.4), len(names) - 0.4
    )  # bars as thick for one parameter as for three
    ax.barh(names, [shares[name] for name in names], height=0.6, color=PALETTE["main"])
    for at, name in enumerate(names):
        ax.annotate(
            f"{shares[name]:.0%}",
            (shares[name], at),
            (6, 0),
            textcoords="offset points",
            va="center",
        )
    ax.set_xlim(0, max(shares.values()) * 1.1)
    ax.xaxis.set_major_formatter(lambda share, _: f"{share:.0%}")
    ax.grid(axis="y", visible=False)
    ax.grid(axis="x", linewidth=0.8)


def draw_slice(ax: Axes, results: Results, name: str) -> None:
    """Dev loss against one parameter: complete, pruned and diverged trials, the best five in another colour."""
    label(ax, name, LOSS)
    scale = Scale.drawn(name, results.space[name])
    trials = (
        results.trials[results.trials[name].notna()]
        if name in results.trials
        else results.trials[:0]
    )
    if not len(trials):
        return say(ax, f"No trial with {name} has ended yet.")
    x = scale.unit(trials[name])
    if scale.few:
        # Moved a little to either side, by the trial's number, so that equal values do not hide each other.
        x = x + (trials.trial.to_numpy(float) * 0.618 % 1 - 0.5) * 0.03
    _draw_losses(ax, trials, x)
    best = trials.dev_loss.notna().to_numpy().cumsum() <= N_BEST
    best &= trials.dev_loss.notna().to_numpy()
    if best.any():
        ax.scatter(
            x[best],
            trials.dev_loss[best],
            s=44,
            color=PALETTE["best"],
            zorder=4,
            label=f"best {N_BEST}",
        )
    ax.set_xlim(-0.06, 1.06)
    ticks = scale.ticks()
    ax.set_xticks([at for at, _ in ticks], [text for _, text in ticks])


def draw_parallel(ax: Axes, results: Results) -> None:
    """A line for each measured trial through its parameters to its dev loss; the better, the darker."""
    ax.set_title("From parameters to dev loss", pad=34)
    order = [
        *results.importances,
        *(name for name in results.space if name not in results.importances),
    ]
    measured = results.measured
    names = [name for name in order if name in measured and measured[name].notna().all()]
    if len(measured) < 2 or not names:
        return say(
            ax,
            f"{len(measured)} measured trials and {len(names)} parameters are too few for this picture.",
        )
    trials = measured[::-1]  # the best are drawn last
    spread = (trials.trial.to_numpy(float) * 0.618 % 1 - 0.5) * 0.025
    scales = [Scale.drawn(name, results.space[name]) for name in names]
    columns = [s.unit(trials[name]) + spread * s.few for s, name in zip(scales, names, strict=True)]
    low, high = loss_window(trials)
    heights = (trials.dev_loss.to_numpy() - low) / (high - low)
    y = np.column_stack([*columns, np.minimum(heights, 1.03)])  # (trials, axes)
    rank = np.linspace(0, 1, len(trials))
    level = np.digitize(rank, [0.2, 0.5, 0.75, 0.9])  # the best tenth, the next 15%, ...
    for i, colour in enumerate(LEVELS):
        lines = [np.column_stack([np.arange(y.shape[1]), row]) for row in y[level == i]]
        ax.add_collection(
            LineCollection(lines, colors=colour, linewidths=2.0 if i == 4 else 1.1, zorder=2 + i)
        )
    ax.plot(y[-1], color=PALETTE["best"], linewidth=2.4, zorder=8)
    ticks = [scale.ticks() for scale in scales]
    digits = 2 if high - low > 0.1 else 3
    ticks.append([((v - low) / (high - low), f"{v:.{digits}f}") for v in np.linspace(low, high, 5)])
    _draw_vertical_axes(ax, [*names, "dev loss"], ticks)


def _draw_vertical_axes(ax: Axes, names: list[str], ticks: list[list[tuple[float, str]]]) -> None:
    ax.set_axis_off()
    ax.set_xlim(-0.02 * len(names), len(names) - 1 + 0.05 * len(names))
    ax.set_ylim(-0.05, 1.05)
    halo = {"facecolor": PALETTE["surface"], "edgecolor": "none", "pad": 0.8, "alpha": 0.8}
    for x, (name, marks) in enumerate(zip(names, ticks, strict=True)):
        ax.plot([x, x], [-0.02, 1.02], color=PALETTE["muted"], linewidth=1, zorder=9)
        ax.text(x, 1.07, name, ha="center", fontweight="bold")
        for y, text in marks:
            where: dict[str, Any] = {
                "xytext": (5, 0),
                "textcoords": "offset points",
                "va": "center",
                "zorder": 10,
                "bbox": halo,
            }
            ax.annotate(text, (x, y), fontsize=9.5, **where)


def _draw_losses(ax: Axes, trials: pd.DataFrame, x: np.ndarray) -> None:
    """Points at (x, dev loss), by how the trial ended; what lies above the window is marked at its top."""
    low, high = loss_window(trials)
    ax.set_ylim(low - 0.04 * (high - low), high + 0.1 * (high - low))
    if trials.dev_loss.isna().all():
        ax.set_yticks([])
    y, top = trials.dev_loss.to_numpy(), high + 0.06 * (high - low)
    diverged = trials.reason.str.startswith("diverged").to_numpy()
    above = (y > high) & ~diverged
    shown = ~np.isnan(y) & ~diverged & ~above
    complete = (trials.state == "COMPLETE").to_numpy()
    tips = np.array([tip(row) for row in trials.to_dict("records")])
    kinds: list[tuple[str, np.ndarray, np.ndarray, dict[str, Any]]] = [
        ("pruned", shown & ~complete, y, {"s": 22, "color": PALETTE["pruned"]}),
        ("complete", shown & complete, y, {"s": 28, "color": PALETTE["main"]}),
        (
            "above the picture",
            above,
            np.full_like(y, top),
            {"s": 26, "color": PALETTE["pruned"], "marker": "^"},
        ),
        (
            "diverged",
            diverged,
            np.full_like(y, top),
            {"s": 34, "color": PALETTE["bad"], "marker": "x"},
        ),
    ]
    for kind, rows, heights, marker in kinds:
        if rows.any():
            points = ax.scatter(x[rows], heights[rows], zorder=3, label=kind, **marker)
            points.set_urls(tips[rows])


def tip(trial: dict[Any, Any]) -> str:
    """What is said of a trial when the mouse rests on it."""
    loss = trial["dev_loss"]
    return f"trial {trial['trial']}: " + (
        f"{loss:.4f}, {trial['reason']}" if loss == loss else trial["reason"]
    )


def loss_window(trials: pd.DataFrame) -> tuple[float, float]:
    """The range of dev losses that a picture shows: that of the complete trials, without those that are far off.

    Pruned trials stopped at losses that no complete trial has; with them in the picture the differences that count
    would be too small to see.
    """
    measured = trials[trials.dev_loss.notna()]
    if not len(measured):
        return 0.0, 1.0
    complete = measured[measured.state == "COMPLETE"]
    values = (complete if len(complete) > 1 else measured).dev_loss.to_numpy()
    low, upper = float(measured.dev_loss.min()), float(np.quantile(values, 0.75))
    high = min(float(values.max()), upper + 2.0 * (upper - low))
    return low, max(low + 1.15 * (high - low), low + 0.01)


def _legend(ax: Axes, **where: Any) -> None:
    handles, labels = ax.get_legend_handles_labels()
    if handles:
        where = where or {"loc": "lower right", "bbox_to_anchor": (1, 1)}
        ax.legend(handles, labels, ncols=len(labels), borderaxespad=0.2, **where)
