"""A training at each learning rate: its picture, written at the end of the study."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import optuna

from studies.harness.cli.terminal import make_console, say
from studies.harness.report.results import read_results
from studies.harness.report.scales import Scale
from studies.harness.store.paths import MLRUNS

# Fields of the base config in the picture's title, and their words.
TITLE_FIELDS = {
    "block_size": "block",
    "n_embd": "embedding",
    "n_hidden": "hidden",
    "batch_size": "batch",
    "init": "init",
}


def write_picture(args: Any, study: optuna.Study, folder: Path) -> None:
    """Draw the sweep to mlruns/pictures/STUDY.png, and copy it to a folder.

    Args:
        args: flags of studies/lr_sweep.py; study and json are read.
    """
    picture = MLRUNS / "pictures" / f"{args.study}.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(plot_dev_losses(study, picture), folder)
    say(make_console(stderr=args.json), f"Picture of dev loss against learning rate: {picture}")


def plot_dev_losses(study: optuna.Study, path: Path) -> Path:
    """Draw each trial's lowest dev loss against its learning rate; returns the path."""
    from studies.harness.report.figures.slices import draw_slice
    from studies.harness.report.figures.style import PALETTE, look, new_figure, place, save_png

    results = read_results(study)
    with look():
        figure = new_figure(900, 520)
        ax = place(figure, 80, 60, 790, 400)
        draw_slice(ax, results, "lr")
        measured = results.measured.sort_values("lr")
        if len(measured):
            scale = Scale.drawn("lr", results.space["lr"])
            lrs = scale.unit(measured.lr)
            ax.plot(lrs, measured.dev_loss, color=PALETTE["main"], linewidth=0.8, zorder=2)
            best = results.measured.iloc[0]
            label = f"lowest: {best.dev_loss:.4f} at lr {best.lr:.3g}"
            lowest = scale.unit([best.lr])[0]
            ax.axvline(lowest, color=PALETTE["best"], linestyle="--", label=label)
            ax.legend(loc="upper center", bbox_to_anchor=(0.5, 1.08), ncols=5)
        ax.set_title(_title(study), pad=24, fontsize=10)
        save_png(figure, path)
    return path


def _title(study: optuna.Study) -> str:
    base = study.user_attrs["base"]
    sizes = ", ".join(f"{word} {base[name]}" for name, word in TITLE_FIELDS.items())
    return f"{base['max_steps']:,} {base['optimizer']} steps at each learning rate: {sizes}"
