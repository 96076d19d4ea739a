"""Dev loss by parameter, and the best lr by another parameter."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from studies.harness.report.figures.slices import draw_best_lr, draw_slice
from studies.harness.report.results import Results
from tests.studies.synthetic import PARAMS, falling, make_trial, results_of


def test_slice_uses_the_search_scale(ax: Axes) -> None:
    trials = [make_trial({**PARAMS, "lr": lr}, falling(2.1 + lr)) for lr in (0.001, 0.01, 0.1)]
    trials.append(
        make_trial({**PARAMS, "lr": 1.0}, [], state="PRUNED", reason="diverged at step 9")
    )

    draw_slice(ax, results_of(*trials), "lr")

    points = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    assert points["complete"][:, 0] == pytest.approx([0, 1 / 3, 2 / 3])
    assert points["complete"][:, 1] == pytest.approx([2.101, 2.11, 2.2])
    assert points["diverged"][0, 0] == pytest.approx(1.0)
    assert points["diverged"][0, 1] > points["complete"][:, 1].max()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.001", "0.01", "0.1", "1"]


def test_slice_highlights_the_best_five(ax: Axes) -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)]

    draw_slice(ax, results_of(*trials), "lr")

    points = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    assert points["best 5"][:, 1] == pytest.approx([2.1, 2.11, 2.12, 2.13, 2.14])


def test_best_lr_line_has_a_point_for_each_value(ax: Axes) -> None:
    trials = [
        make_trial({**PARAMS, "lr": lr, "batch_size": batch_size}, falling(2.1 + off))
        for batch_size, best_lr in ((32, 0.01), (256, 0.1))
        for lr, off in ((best_lr, 0.0), (1.0, 0.1))
    ]

    draw_best_lr(ax, results_of(*trials), "batch_size")

    (line,) = ax.lines
    # lr is searched from 0.001 to 1, batch_size has four choices.
    assert np.asarray(line.get_xydata()) == pytest.approx(np.array([[0, 1 / 3], [1, 2 / 3]]))


def test_best_lr_line_is_that_of_all_trials(ax: Axes, large: Results) -> None:
    draw_best_lr(ax, large, "batch_size")

    assert sum(len(np.asarray(c.get_offsets())) for c in ax.collections) == 2000
    best = large.measured.groupby("batch_size").lr.first()
    heights = np.asarray(ax.lines[0].get_xydata())[:, 1]
    assert heights == pytest.approx(1 + np.log10(best.to_numpy()) / 3)


def test_slice_of_a_large_study_has_small_markers(ax: Axes, large: Results) -> None:
    draw_slice(ax, large, "lr")

    sizes = {c.get_label(): c.get_sizes()[0] for c in ax.collections}  # type: ignore[attr-defined]
    assert sizes["complete"] == 7 and sizes["best 5"] == 44
