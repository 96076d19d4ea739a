"""Fixtures of the figures' tests."""

from __future__ import annotations

import pytest
from matplotlib.axes import Axes

from studies.harness.report.figures.style import new_figure, place


@pytest.fixture
def ax() -> Axes:
    """Empty axes of 500 x 300 pixels."""
    return place(new_figure(600, 400), 60, 40, 500, 300)
