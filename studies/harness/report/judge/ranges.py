"""What a search says about itself: whether its ranges and its step budget were wide enough, and its pruner fair."""

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
EDGE = 0.05  # share of a range, as it is searched, that counts as its edge
CHANCE = 0.05  # a verdict is given when chance alone would bring it about less often than that
FEWEST = 10  # measured trials below which a range is not judged


@dataclass(frozen=True)
class Boundary:
    """Whether the best trials press against an edge of a parameter's range.

    Attributes:
        verdict: "widen", "limit" (the edge cannot be moved), "inside", or "unknown" for too few trials.
        side: "lower" or "upper" with "widen" and "limit"; empty otherwise.
        hits: how many of the best five lie there.
        sentence: for a reader.
    """

    name: str
    verdict: str
    side: str
    hits: int
    sentence: str


def judge_boundary(name: str, distribution: BaseDistribution, trials: pd.DataFrame) -> Boundary:
    """Judge a parameter's range by the five best trials.

    They press against an edge when at least three lie within 5% of it, in the scale of the search, and chance would
    put so many there in less than one case of twenty (a range of few values has a wide edge); or when all lie in the
    outer quarter and one of them at the edge. Choices that are numbers have edges too; for others the sentence says
    what the best chose.

    Args:
        trials: with the parameter's column and dev_loss.
    """
    known = trials[trials.dev_loss.notna() & trials[name].notna()] if name in trials else trials[:0]
    if len(known) < FEWEST:
        return Boundary(
            name,
            "unknown",
            "",
            0,
            f"{len(known)} measured trials are too few to judge {name}; take 10.",
        )
    best = known.sort_values(["dev_loss", "trial"])[name][:N_BEST]
    scale = Scale.searched(distribution)
    if scale.choices and not _is_ordered(scale.choices):
        chosen, n = best.mode()[0], int((best == best.mode()[0]).sum())
        return Boundary(
            name,
            "inside",
            "",
            0,
            f"{n} of the best {N_BEST} trials have {name} = {tick_label(chosen)}.",
        )
    places = scale.unit(best)
    for side, near in (("lower", places <= EDGE), ("upper", places >= 1 - EDGE)):
        hits = int(near.sum())
        pressed = hits > N_BEST // 2 and _chance_of(hits, _edge_share(scale)) < CHANCE
        outer = bool(
            (places <= QUARTER).all() if side == "lower" else (places >= 1 - QUARTER).all()
        )
        if pressed or (hits and outer):
            return _at_edge(
                name,
                scale,
                side,
                hits,
                f"{_span(best)}, in the {side} quarter" if not pressed else "",
            )
    rest = (
        "no edge stands out"
        if ((places <= EDGE) | (places >= 1 - EDGE)).any()
        else "its range is wide enough"
    )
    return Boundary(
        name, "inside", "", 0, f"The best {N_BEST} trials have {name} {_span(best)}; {rest}."
    )


def _span(best: pd.Series) -> str:
    low, high = (tick_label(value) for value in (best.min(), best.max()))
    return f"all at {low}" if low == high else f"between {low} and {high}"


def _at_edge(name: str, scale: Scale, side: str, hits: int, span: str) -> Boundary:
    values = (
        sorted(scale.choices)
        if scale.choices
        else [scale.distribution.low, scale.distribution.high]
    )
    low, high = values[0], values[-1]
    edge = low if side == "lower" else high
    who = f"The best {N_BEST} trials" if hits == N_BEST else f"{hits} of the best {N_BEST} trials"
    where = f"{who} are within {EDGE:.0%} of the {side} edge of {name}"
    where = f"The best {N_BEST} trials have {name} {span} of its range" if span else where
    limit = _limit(name, side)
    if limit is not None and (edge <= limit if side == "lower" else edge >= limit):
        sentence = f"{where}, {tick_label(edge)}, which is as far as it can go: fix {name} there."
        return Boundary(name, "limit", side, hits, sentence)
    far = scale.log or bool(scale.choices) or low * 4 <= high
    times, plus = (2 if isinstance(edge, int) else 3), (high - low) / 2
    beyond = (
        (edge / times if far else edge - plus)
        if side == "lower"
        else (edge * times if far else edge + plus)
    )
    if limit is not None:
        beyond = max(beyond, limit) if side == "lower" else min(beyond, limit)
    beyond = round(beyond) if isinstance(edge, int) else float(f"{beyond:.2g}")
    sentence = (
        f"{where}: widen {name} beyond {tick_label(edge)}, to {tick_label(beyond)} for example."
    )
    return Boundary(name, "widen", side, hits, sentence)


def _limit(name: str, side: str) -> float | None:
    """The least or the greatest value that Config allows, where it can be reached."""
    field = Config.model_fields.get(name)
    values = [
        getattr(rule, "ge" if side == "lower" else "le", None)
        for rule in (field.metadata if field else [])
    ]
    return next((float(value) for value in values if value is not None), None)


def _is_ordered(choices: tuple[Any, ...]) -> bool:
    numbers = all(isinstance(c, int | float) and not isinstance(c, bool) for c in choices)
    return numbers and list(choices) == sorted(choices)


def _edge_share(scale: Scale) -> float:
    """The share of a range's values that count as one edge."""
    if scale.choices:
        return 1 / len(scale.choices)
    step = scale.distribution.step
    if step is None or scale.log:
        return EDGE
    n = round((scale.distribution.high - scale.distribution.low) / step) + 1
    return (math.floor(EDGE * (n - 1)) + 1) / n


def _chance_of(hits: int, share: float) -> float:
    """How often at least so many of the best would fall into a share of the range by chance alone."""
    return sum(
        math.comb(N_BEST, k) * share**k * (1 - share) ** (N_BEST - k)
        for k in range(hits, N_BEST + 1)
    )
