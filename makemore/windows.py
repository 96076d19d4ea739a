"""Numbers for the windows of a symbol stream: equal windows have the same number."""

from __future__ import annotations

import numpy as np

# A table with an entry for each possible number replaces a sort up to this many entries an example.
TABLE_ENTRIES = 2


def number_windows(
    stream: np.ndarray, positions: np.ndarray, start: int, stop: int
) -> tuple[np.ndarray, int]:
    """Number the windows stream[p + start : p + stop]; the numbers sort as the windows do.

    Args:
        stream: (S,) symbols, 0 or above.
        positions: (N,) positions p in the stream.
        start: first symbol of a window, relative to p.
        stop: end of a window, relative to p.

    Returns:
        (N,) int64, and a number that all of them are below.
    """
    base = int(stream.max(initial=0)) + 1
    numbers = np.zeros(len(positions), np.int64)
    bound = 1
    for offset in range(start, stop):
        # While a table can rank them, small numbers keep the next table small.
        if _fits_table(bound, len(numbers)) and not _fits_table(bound * base, len(numbers)):
            numbers, bound = rank(numbers, bound)
        elif bound * base > 2**62:  # the product would overflow int64
            numbers, bound = rank(numbers, bound)
        numbers *= base
        numbers += stream[positions + offset]
        bound *= base
    return numbers, bound


def rank(numbers: np.ndarray, bound: int) -> tuple[np.ndarray, int]:
    """Replace the distinct numbers by 0, 1, 2, ... in the same order.

    Args:
        numbers: (N,) integers, 0 or above.
        bound: a number that all of them are below.

    Returns:
        (N,) int64, and how many distinct numbers there are.
    """
    if not _fits_table(bound, len(numbers)):
        distinct, ranks = np.unique(numbers, return_inverse=True)
        return ranks, len(distinct)
    present = np.zeros(bound, bool)
    present[numbers] = True
    table = np.cumsum(present, dtype=np.int32)
    table -= 1
    return table[numbers].astype(np.int64), int(table[-1]) + 1


def _fits_table(bound: int, n: int) -> bool:
    return bound <= max(1 << 16, TABLE_ENTRIES * n)
