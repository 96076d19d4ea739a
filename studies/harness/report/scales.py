"""Map the values of a searched parameter to an axis from 0 to 1, with ticks."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

# Parameters for which a ratio matters more than a difference; figures show them on a log axis.
SIZES = ("n_embd", "n_hidden", "batch_size")
MAX_TICKS = 6
EDGE_MARGIN = 0.09  # share of an axis without ticks next to an edge, where labels would overlap


@dataclass(frozen=True)
class Scale:
    """A parameter's range as an axis from 0 to 1.

    Attributes:
        distribution: the range. A parameter with a single possible value has no scale.
        log: whether equal ratios have equal lengths. Choices are always at equal distances.
    """

    distribution: Any
    log: bool

    @classmethod
    def searched(cls, distribution: BaseDistribution) -> Scale:
        """Return the scale in which the sampler draws values."""
        return cls(distribution, bool(getattr(distribution, "log", False)))

    @classmethod
    def drawn(cls, name: str, distribution: BaseDistribution) -> Scale:
        """Return the scale for a figure: as searched, but log for wide ranges of sizes.

        A range is wide if its upper edge is at least four times its lower edge.
        """
        scale = cls.searched(distribution)
        if scale.choices or name not in SIZES:
            return scale
        if scale.distribution.low * 4 > scale.distribution.high:
            return scale
        return cls(distribution, True)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The choices of a categorical parameter; empty for a range."""
        if isinstance(self.distribution, CategoricalDistribution):
            return self.distribution.choices
        return ()

    @property
    def few(self) -> bool:
        """Whether there are so few possible values that points would hide each other."""
        if self.choices:
            return True
        step = getattr(self.distribution, "step", None)
        return step is not None and self.distribution.high - self.distribution.low <= 30 * step

    def unit(self, values: Iterable[Any]) -> np.ndarray:
        """Return the position of each value: 0 is the lower edge, 1 the upper edge."""
        if self.choices:
            places = [self.distribution.to_internal_repr(_plain(value)) for value in values]
            return np.asarray(places, float) / max(1, len(self.choices) - 1)
        low = self.distribution.low
        high = self.distribution.high
        numbers = np.asarray(list(values), float)
        if self.log:
            return np.log(numbers / low) / math.log(high / low)
        return (numbers - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Return positions and labels: every choice, or the edges and round numbers between."""
        if self.choices:
            values: list[Any] = list(self.choices)
        else:
            low = self.distribution.low
            high = self.distribution.high
            rounds = _round_numbers(low, high, self.distribution.step, self.log)
            values = [low, *_thin_out(self, rounds), high]
        return [
            (float(place), tick_label(value))
            for place, value in zip(self.unit(values), values, strict=True)
        ]


def tick_label(value: Any) -> str:
    """Return a value as text with at most three significant digits: 1024, 0.00031, 1e-05."""
    if isinstance(value, float) and not value.is_integer():
        return f"{value:.3g}"
    return f"{_plain(value)}"


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _thin_out(scale: Scale, values: list[float]) -> list[float]:
    """Drop ticks next to an edge, and keep at most six ticks including the edges.

    Fewer than eight values on a linear scale are all kept.
    """
    margin = 0.0 if len(values) < 8 and not scale.log else EDGE_MARGIN
    clear = [
        value
        for value, place in zip(values, scale.unit(values), strict=True)
        if margin < place < 1 - margin
    ]
    if not margin:
        return clear
    every = math.ceil(len(clear) / (MAX_TICKS - 2))
    return clear[:: every or 1]


def _round_numbers(low: float, high: float, step: float | None, log: bool) -> list[float]:
    if log:
        return _round_numbers_log(low, high)
    if step is not None and (high - low) / step < 9:
        return [low + i * step for i in range(1, round((high - low) / step))]
    rough = (high - low) / 4
    size = 10 ** math.floor(math.log10(rough))
    unit = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
    if step is not None and float(step).is_integer():
        unit = max(1, round(unit))
    return [i * unit for i in range(math.ceil(low / unit), math.floor(high / unit) + 1)]


def _round_numbers_log(low: float, high: float) -> list[float]:
    decades = math.log10(high / low)
    digits: tuple[int, ...] = (1, 2, 5)
    if decades >= 2:
        digits = (1,)
    elif decades >= 1.3:
        digits = (1, 3)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounds = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
    return [int(r) if r.is_integer() else r for r in rounds if low < r < high]
