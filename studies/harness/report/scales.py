"""Where a parameter's values lie in its range, between 0 and 1, and the ticks of an axis over it."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution, CategoricalDistribution

SIZES = (
    "n_embd",
    "n_hidden",
    "batch_size",
)  # what doubling does to them matters, not what adding does
MOST_TICKS = 6


@dataclass(frozen=True)
class Scale:
    """A parameter's range as an axis from 0 to 1.

    Attributes:
        distribution: the range; a parameter with one possible value has no scale.
        log: whether equal ratios have equal lengths. Choices stand at equal distances whatever they are.
    """

    distribution: Any
    log: bool

    @classmethod
    def searched(cls, distribution: BaseDistribution) -> Scale:
        """The scale in which the sampler draws."""
        return cls(distribution, bool(getattr(distribution, "log", False)))

    @classmethod
    def drawn(cls, name: str, distribution: BaseDistribution) -> Scale:
        """The scale for a picture: that of the search, but sizes that span a factor of four or more in log."""
        scale = cls.searched(distribution)
        if (
            scale.choices
            or name not in SIZES
            or scale.distribution.low * 4 > scale.distribution.high
        ):
            return scale
        return cls(distribution, True)

    @property
    def choices(self) -> tuple[Any, ...]:
        """The choices of a categorical parameter; empty for a range."""
        return (
            self.distribution.choices
            if isinstance(self.distribution, CategoricalDistribution)
            else ()
        )

    @property
    def few(self) -> bool:
        """Whether there are so few different values that points would lie on each other."""
        step = getattr(self.distribution, "step", None)
        return bool(self.choices) or (
            step is not None and self.distribution.high - self.distribution.low <= 30 * step
        )

    def unit(self, values: Iterable[Any]) -> np.ndarray:
        """Where values lie: 0 is the lower edge, 1 the upper."""
        if self.choices:
            places = [self.distribution.to_internal_repr(_plain(value)) for value in values]
            return np.asarray(places, float) / max(1, len(self.choices) - 1)
        low, high = self.distribution.low, self.distribution.high
        numbers = np.asarray(list(values), float)
        if self.log:
            return np.log(numbers / low) / math.log(high / low)
        return (numbers - low) / (high - low)

    def ticks(self) -> list[tuple[float, str]]:
        """Places and labels: every choice, or both edges and round numbers between them."""
        if self.choices:
            values: list[Any] = list(self.choices)
        else:
            low, high = self.distribution.low, self.distribution.high
            values = [
                low,
                *_spread(self, _round_numbers(low, high, self.distribution.step, self.log)),
                high,
            ]
        return [
            (float(place), tick_label(value))
            for place, value in zip(self.unit(values), values, strict=True)
        ]


def tick_label(value: Any) -> str:
    """A value as a reader would write it: 1024 as 1024, 0.00031 as 0.00031, 1e-05 as 1e-05."""
    return (
        f"{value:.3g}"
        if isinstance(value, float) and not value.is_integer()
        else f"{_plain(value)}"
    )


def _plain(value: Any) -> Any:
    value = value.item() if isinstance(value, np.generic) else value
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _spread(scale: Scale, values: list[float]) -> list[float]:
    """Those that do not crowd an edge, at most six with the edges."""
    crowd = 0.0 if len(values) < 8 and not scale.log else 0.09
    clear = [
        v for v, place in zip(values, scale.unit(values), strict=True) if crowd < place < 1 - crowd
    ]
    if not crowd:
        return clear
    every = math.ceil(len(clear) / (MOST_TICKS - 2))
    return clear[:: every or 1]


def _round_numbers(low: float, high: float, step: float | None, log: bool) -> list[float]:
    if step is not None and (high - low) / step < 9 and not log:
        return [low + i * step for i in range(1, round((high - low) / step))]
    if not log:
        rough = (high - low) / 4
        size = 10 ** math.floor(math.log10(rough))
        unit = next(m * size for m in (1, 2, 2.5, 5, 10) if m * size >= rough)
        unit = max(1, round(unit)) if step is not None and float(step).is_integer() else unit
        return [i * unit for i in range(math.ceil(low / unit), math.floor(high / unit) + 1)]
    decades = math.log10(high / low)
    digits = (1,) if decades >= 2 else (1, 3) if decades >= 1.3 else (1, 2, 5)
    exponents = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    rounds = [float(f"{digit}e{exponent}") for exponent in exponents for digit in digits]
    return [int(r) if r.is_integer() else r for r in rounds if low < r < high]
