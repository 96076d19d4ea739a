"""Positions of values on an axis, and its ticks."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from studies.harness.report.scales import Scale
from tests.studies.synthetic import SPACE

RANGES: dict[str, BaseDistribution] = {
    **SPACE,
    "n_embd": IntDistribution(2, 24),
    "weight_decay": FloatDistribution(1e-5, 0.1, log=True),
    "dropout": FloatDistribution(0.0, 0.45),
    "direct": CategoricalDistribution([False, True]),
    "width": IntDistribution(64, 1024, log=True),
}


@pytest.mark.parametrize(
    ("name", "value", "place"),
    [
        ("lr", 0.1, 2 / 3),
        ("block_size", 5, 0.5),
        ("block_size", 5.0, 0.5),  # a column with gaps has floats
        ("batch_size", 64.0, 1 / 3),
        ("direct", True, 1.0),
        ("n_hidden", 175, 0.5),
    ],
)
def test_value_has_its_position_in_the_search(name: str, value: Any, place: float) -> None:
    assert Scale.searched(RANGES[name]).unit([value])[0] == pytest.approx(place)


def test_figures_show_sizes_on_log_axes() -> None:
    assert Scale.drawn("n_hidden", RANGES["n_hidden"]).unit([50 * 6**0.5])[0] == pytest.approx(0.5)
    # Ranges below a factor of four are linear; block_size is not a size.
    assert not Scale.drawn("n_hidden", IntDistribution(100, 300)).log
    assert not Scale.drawn("block_size", RANGES["block_size"]).log


@pytest.mark.parametrize("name", RANGES)
def test_ticks_are_few_and_ordered_from_edge_to_edge(name: str) -> None:
    ticks = Scale.drawn(name, RANGES[name]).ticks()

    places = [place for place, _ in ticks]
    assert places[0] == 0
    assert places[-1] == pytest.approx(1)
    assert places == sorted(set(places))
    assert len(ticks) <= 8
    assert len({text for _, text in ticks}) == len(ticks)


@given(st.floats(1e-6, 1.0), st.floats(2.0, 1e6), st.booleans())
def test_ticks_of_any_range_are_inside_it(low: float, ratio: float, log: bool) -> None:
    ticks = Scale.searched(FloatDistribution(low, low * ratio, log=log)).ticks()

    assert 2 <= len(ticks) <= 8
    assert all(-1e-9 <= place <= 1 + 1e-9 for place, _ in ticks)
