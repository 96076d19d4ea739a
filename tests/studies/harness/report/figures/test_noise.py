"""Dev losses of seed repeats."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.axes import Axes

from studies.harness.report.figures.noise import draw_noise
from studies.harness.store.winner.noise import measure_noise
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, repeats_of


def test_each_repeated_trial_has_a_row(ax: Axes) -> None:
    trials = [make_trial(PARAMS, falling(loss)) for loss in (2.1, 2.2)]
    study = make_study([*trials, *repeats_of(1, 2.15, 2.17), *repeats_of(0, 2.2, 2.3)])
    noise = measure_noise(study.get_trials())
    assert noise is not None

    draw_noise(ax, noise)

    # Trial 1 has the lower mean, so its row is the first.
    assert [tick.get_text() for tick in ax.get_yticklabels()] == ["trial 1", "trial 0"]
    points = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    assert points["the trial itself"] == pytest.approx(np.array([[2.2, 0], [2.1, 1]]))
    assert {tuple(row) for row in points["seed repeat"].tolist()} == {
        (2.15, 0),
        (2.17, 0),
        (2.2, 1),
        (2.3, 1),
    }
