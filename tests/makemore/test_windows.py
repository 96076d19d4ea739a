"""Numbers of windows: equal for equal windows, sorted as the windows, by tables and by sorts."""

from __future__ import annotations

import numpy as np
import pytest

from makemore import windows
from makemore.windows import number_windows, rank


@pytest.mark.parametrize("entries", [0, 2, 10**6])  # entries of a table for each example
@pytest.mark.parametrize(("symbols", "length"), [(2, 1), (27, 4), (27, 33), (65_536, 9)])
def test_numbers_are_those_of_sorted_windows(
    monkeypatch: pytest.MonkeyPatch, entries: int, symbols: int, length: int
) -> None:
    monkeypatch.setattr(windows, "TABLE_ENTRIES", entries)
    random = np.random.default_rng(length)
    # Repeated pieces, so that long windows are equal too.
    pieces = random.integers(0, symbols, (5, 40))
    stream = pieces[random.integers(0, 5, 100)].ravel().astype(np.uint16)
    stream[0] = symbols - 1
    positions = np.arange(40, len(stream) - 1, dtype=np.int32)

    numbers, bound = number_windows(stream, positions, 1 - length, 1)
    ranks, n = rank(numbers, bound)

    rows = np.stack([stream[positions + t] for t in range(1 - length, 1)], axis=1)
    different, expected = np.unique(rows, axis=0, return_inverse=True)
    assert numbers.max() < bound and n == len(different)
    assert np.array_equal(ranks, expected.ravel())
