"""Searching learning rates: a range that a range test tells, a sampler that spreads them evenly, and a picture."""

from __future__ import annotations

import math
from pathlib import Path

import optuna
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.lr_sweep import lr_range_test
from studies.harness.report.results import read_results
from studies.harness.report.scales import Scale


def decade_around_suggestion(config: Config, corpus: Corpus) -> tuple[float, float]:
    """The decade of learning rates whose middle, on a log scale, a range test of this model suggests.

    The ends have three significant digits, and the test has one thread: the next launch must find the very same range.
    """
    torch.set_num_threads(1)
    suggestion = lr_range_test(config, corpus).suggest()
    return float(f"{suggestion / math.sqrt(10):.3g}"), float(f"{suggestion * math.sqrt(10):.3g}")


def plot_dev_losses(study: optuna.Study, path: Path) -> Path:
    """Draw each trial's best dev loss against its learning rate on a log axis, the lowest marked; returns the path."""
    from studies.harness.report.figures.slices import draw_slice
    from studies.harness.report.figures.style import PALETTE, look, new_figure, place, save_png

    results = read_results(study)
    with look():
        figure = new_figure(900, 520)
        ax = place(figure, 80, 60, 790, 400)
        draw_slice(ax, results, "lr")
        measured = results.measured.sort_values("lr")
        if len(measured):
            scale, best = Scale.drawn("lr", results.space["lr"]), results.measured.iloc[0]
            ax.plot(
                scale.unit(measured.lr),
                measured.dev_loss,
                color=PALETTE["main"],
                linewidth=0.8,
                zorder=2,
            )
            reading = f"lowest: {best.dev_loss:.4f} at lr {best.lr:.3g}"
            ax.axvline(
                scale.unit([best.lr])[0], color=PALETTE["best"], linestyle="--", label=reading
            )
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=5)
        ax.set_title(_title(study), pad=24, fontsize=10)
        save_png(figure, path)
    return path


def _title(study: optuna.Study) -> str:
    base = study.user_attrs["base"]
    names = {
        "block_size": "block",
        "n_embd": "embedding",
        "n_hidden": "hidden",
        "batch_size": "batch",
        "init": "init",
    }
    sizes = ", ".join(f"{word} {base[name]}" for name, word in names.items())
    return f"{base['max_steps']:,} {base['optimizer']} steps at each learning rate: {sizes}"
