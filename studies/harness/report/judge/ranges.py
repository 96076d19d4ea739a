"""Verdict on a parameter's range: are the best trials at an edge of it?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from optuna.distributions import BaseDistribution

from makemore.config import Config
from studies.harness.report.scales import Scale, tick_label

if TYPE_CHECKING:
    import pandas as pd

N_BEST = 5  # trials from which a range is judged
QUARTER = 0.25
EDGE = 0.05  # share of a range, in the scale of the search, that counts as its edge
MAX_CHANCE = 0.05  # a verdict needs a smaller probability to arise by chance
STEP_ERROR = 1e-9  # steps; allows for the rounding of floats
MIN_MEASURED = 10  # trials with a dev loss needed for a verdict


@dataclass(frozen=True)
class Range:
    """Whether the best trials are at an edge of a parameter's range.

    Attributes:
        name: of the parameter.
        verdict: "widen", "limit" (the edge cannot be moved), "inside", or "unknown" for too few
            trials.
        side: "lower" or "upper" with "widen" and "limit"; otherwise empty.
        n_at_edge: how many of the best five are at the edge.
        sentence: the verdict for a reader.
        wider: with "widen", the range to search next, as --range takes it: 50:600, or 32,64,128.
    """

    name: str
    verdict: str
    side: str
    n_at_edge: int
    sentence: str
    wider: str = ""


def judge_range(name: str, distribution: BaseDistribution, trials: pd.DataFrame) -> Range:
    """Judge a parameter's range by the five best trials.

    They are at an edge in two cases. Either at least three of them are within 5% of it, in the
    scale of the search, and chance alone would put so many there with a probability below 5% (a
    range of few values has a wide edge). Or all are in the outer quarter and at least one is at the
    edge. Choices that are ascending numbers have edges too. For other choices the sentence names
    the most frequent one.

    Args:
        name: of the parameter.
        distribution: its range.
        trials: columns trial, dev_loss and the parameter.
    """
    known = trials[:0]
    if name in trials:
        known = trials[trials.dev_loss.notna() & trials[name].notna()]
    if len(known) < MIN_MEASURED:
        sentence = (
            f"The range of {name} cannot be judged from {len(known)} measured trials; at least "
            f"{MIN_MEASURED} are needed."
        )
        return Range(name, "unknown", "", 0, sentence)

    best = known.sort_values(["dev_loss", "trial"])[name][:N_BEST]
    scale = Scale.searched(distribution)
    if scale.choices and not _is_ordered(scale.choices):
        chosen = best.mode()[0]
        n = int((best == chosen).sum())
        sentence = f"{n} of the best {N_BEST} trials have {name} = {tick_label(chosen)}."
        return Range(name, "inside", "", 0, sentence)

    places = scale.unit(best)
    at_edge = {"lower": places <= EDGE, "upper": places >= 1 - EDGE}
    in_quarter = {"lower": places <= QUARTER, "upper": places >= 1 - QUARTER}
    for side in ("lower", "upper"):
        n_at_edge = int(at_edge[side].sum())
        majority = n_at_edge > N_BEST // 2
        if majority and _chance_of(n_at_edge, _edge_share(scale)) < MAX_CHANCE:
            return _at_edge(name, scale, side, n_at_edge)
        if n_at_edge and in_quarter[side].all():
            return _at_edge(name, scale, side, n_at_edge, values=_format_values(best))

    rest = "the range is wide enough"
    if (at_edge["lower"] | at_edge["upper"]).any():
        rest = "too few of them are at an edge to widen the range"
    sentence = f"The best {N_BEST} trials have {name} {_format_values(best)}; {rest}."
    return Range(name, "inside", "", 0, sentence)


def _format_values(best: pd.Series) -> str:
    low = tick_label(best.min())
    high = tick_label(best.max())
    return f"all at {low}" if low == high else f"between {low} and {high}"


def _at_edge(name: str, scale: Scale, side: str, n_at_edge: int, values: str = "") -> Range:
    """Return the verdict "widen", or "limit" if Config allows nothing beyond the edge.

    Args:
        values: the values of the best trials, if they are in the outer quarter.
    """
    low, high = _edges(scale)
    edge = low if side == "lower" else high
    who = f"The best {N_BEST} trials"
    if values:
        where = f"{who} have {name} {values}, in the {side} quarter of its range"
    else:
        who = who if n_at_edge == N_BEST else f"{n_at_edge} of the best {N_BEST} trials"
        where = f"{who} are within {EDGE:.0%} of the {side} edge of {name}"

    shown = tick_label(edge)
    wider = _widened(scale, side, _config_limit(name, side, edge))
    if wider is None:
        smaller = "smaller" if side == "lower" else "larger"
        sentence = f"{where}; {name} cannot be {smaller} than {shown}, so fix it at {shown}."
        return Range(name, "limit", side, n_at_edge, sentence)
    new_edge = tick_label(wider[0] if side == "lower" else wider[-1])
    sentence = f"{where}: widen {name} beyond {shown}, for example to {new_edge}."
    separator = "," if scale.choices else ":"
    text = separator.join(_exact(value) for value in wider)
    return Range(name, "widen", side, n_at_edge, sentence, text)


def _edges(scale: Scale) -> tuple[Any, Any]:
    if scale.choices:
        return min(scale.choices), max(scale.choices)
    return scale.distribution.low, scale.distribution.high


def _exact(value: Any) -> str:
    """Return a number as the shortest text that is equal to it: 0.001, 1, 3e-05."""
    if isinstance(value, int):
        return str(value)
    short = f"{value:g}"
    return short if float(short) == value else repr(value)


# ---- wider ranges


@dataclass(frozen=True)
class _Limit:
    """The bound that Config sets on one side of a field; infinite if it sets none."""

    side: str
    value: float
    is_inclusive: bool = True

    def allows(self, value: float) -> bool:
        if value == self.value:
            return self.is_inclusive
        return (value > self.value) == (self.side == "lower")


def _config_limit(name: str, side: str, edge: Any) -> _Limit:
    field = Config.model_fields.get(name)
    if field is None and side == "lower" and edge > 0:
        # A field of a user's model, whose limits are not stored: a positive range stays positive.
        return _Limit(side, 1) if isinstance(edge, int) else _Limit(side, 0, False)
    inclusive, exclusive = ("ge", "gt") if side == "lower" else ("le", "lt")
    for rule in field.metadata if field else []:
        for attribute in (inclusive, exclusive):
            if hasattr(rule, attribute):
                return _Limit(side, float(getattr(rule, attribute)), attribute == inclusive)
    return _Limit(side, -math.inf if side == "lower" else math.inf)


def _widened(scale: Scale, side: str, limit: _Limit) -> list[Any] | None:
    """Return the edges of a wider range, or one more choice; None if Config allows nothing more."""
    low, high = _edges(scale)
    is_lower = side == "lower"
    edge = low if is_lower else high
    beyond = _beyond(scale, edge, limit)
    if beyond == edge:
        return None
    if scale.choices:
        return [beyond, *scale.choices] if is_lower else [*scale.choices, beyond]
    step = scale.distribution.step
    if step is None:
        return [beyond, high] if is_lower else [low, beyond]

    # The edges must be a whole number of steps apart.
    moved = max(1, math.floor(abs(beyond - edge) / step + STEP_ERROR)) * step
    new_edge = _clean(edge - moved if is_lower else edge + moved)
    if limit.allows(new_edge):
        return [new_edge, high] if is_lower else [low, new_edge]
    if not is_lower:
        return None
    return [beyond, _clean(beyond + math.ceil((high - beyond) / step - STEP_ERROR) * step)]


def _beyond(scale: Scale, edge: Any, limit: _Limit) -> Any:
    """Return a suggestion for the new edge; it equals `edge` if the limit allows nothing beyond.

    An edge moves by a factor of 3 (2 for integers) if the range is searched in log, is a list of
    choices, or spans a factor of 4; otherwise by half of the range. A limit that Config excludes is
    approached by half of the distance.
    """
    low, high = _edges(scale)
    sign = -1 if limit.side == "lower" else 1
    if scale.log or scale.choices or low * 4 <= high:
        beyond = edge * (2 if isinstance(edge, int) else 3) ** sign
    else:
        beyond = edge + sign * (high - low) / 2
    rounded = float(f"{beyond:.2g}")
    if isinstance(edge, float) and (rounded - edge) * sign > 0:
        beyond = rounded
    if not limit.allows(beyond):
        beyond = limit.value if limit.is_inclusive else (edge + limit.value) / 2
    if not isinstance(edge, int):
        return beyond
    # Half of a range of width 1 rounds to nothing.
    return edge + sign if round(beyond) == edge and limit.allows(edge + sign) else round(beyond)


def _clean(value: Any) -> Any:
    """Return a float without the rounding error of a sum, and an integer unchanged."""
    return round(value, 12)


# ---- chance


def _is_ordered(choices: tuple[Any, ...]) -> bool:
    numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
    return numbers and list(choices) == sorted(choices)


def _edge_share(scale: Scale) -> float:
    """Return the share of a range's values that count as one edge."""
    if scale.choices:
        return 1 / len(scale.choices)
    step = scale.distribution.step
    if step is None or scale.log:
        return EDGE
    n = round((scale.distribution.high - scale.distribution.low) / step) + 1
    return (math.floor(EDGE * (n - 1)) + 1) / n


def _chance_of(n_at_edge: int, share: float) -> float:
    """Return the probability that at least so many of the best are in a share of the range."""
    return sum(
        math.comb(N_BEST, k) * share**k * (1 - share) ** (N_BEST - k)
        for k in range(n_at_edge, N_BEST + 1)
    )
