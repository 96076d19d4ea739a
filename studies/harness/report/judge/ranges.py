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
    """

    name: str
    verdict: str
    side: str
    n_at_edge: int
    sentence: str


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

    limit = _config_limit(name, side)
    shown = tick_label(edge)
    if limit is not None and (edge <= limit if side == "lower" else edge >= limit):
        smaller = "smaller" if side == "lower" else "larger"
        sentence = f"{where}; {name} cannot be {smaller} than {shown}, so fix it at {shown}."
        return Range(name, "limit", side, n_at_edge, sentence)
    new_edge = tick_label(_widened_edge(scale, side, limit))
    sentence = f"{where}: widen {name} beyond {shown}, for example to {new_edge}."
    return Range(name, "widen", side, n_at_edge, sentence)


def _edges(scale: Scale) -> tuple[Any, Any]:
    if scale.choices:
        return min(scale.choices), max(scale.choices)
    return scale.distribution.low, scale.distribution.high


def _widened_edge(scale: Scale, side: str, limit: float | None) -> float:
    """Return a suggestion for the new edge, at most `limit`.

    An edge moves by a factor of 3 (2 for integers) if the range is searched in log, is a list of
    choices, or spans a factor of 4; otherwise by half of the range.
    """
    low, high = _edges(scale)
    edge = low if side == "lower" else high
    by_factor = scale.log or bool(scale.choices) or low * 4 <= high
    factor = 2 if isinstance(edge, int) else 3
    half = (high - low) / 2
    if side == "lower":
        beyond = edge / factor if by_factor else edge - half
        beyond = beyond if limit is None else max(beyond, limit)
    else:
        beyond = edge * factor if by_factor else edge + half
        beyond = beyond if limit is None else min(beyond, limit)
    return round(beyond) if isinstance(edge, int) else float(f"{beyond:.2g}")


def _config_limit(name: str, side: str) -> float | None:
    """Return the least or greatest value that Config allows; None if it sets no such limit."""
    field = Config.model_fields.get(name)
    rules = field.metadata if field else []
    values = [getattr(rule, "ge" if side == "lower" else "le", None) for rule in rules]
    return next((float(value) for value in values if value is not None), None)


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
