"""Search spaces: functions (trial, base) -> Config, and their description for the storage."""

from __future__ import annotations

import difflib
import math
import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    IntDistribution,
    distribution_to_json,
)

from makemore.config import Config
from makemore.errors import UserError

if TYPE_CHECKING:
    from makemore.engines import Envelope

Space = Callable[[optuna.Trial, Any], Config]  # the base may be of a subclass of Config

StoredChoice = bool | int | float | str | None

# The fields that decide how much memory a model needs.
SIZE_FIELDS = ("block_size", "n_embd", "n_hidden", "batch_size", "direct", "dropout", "ema")


def distributions(space: Space, base: Config) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter that the space suggests.

    Raises:
        UserError: the space suggests nothing, returns no config, has choices that a database cannot
            hold, sets fields that it does not suggest, or changes a suggested value. Then a trial's
            parameters would not reproduce its config.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    probe = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    optuna.logging.set_verbosity(verbosity)

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Choices for a categorical")  # refused below
        config = space(probe, base)
    if not isinstance(config, Config):
        raise UserError(
            f"the search space returned a {type(config).__name__}; end it with: "
            "return base.replace(...)"
        )
    if not probe.params:
        raise UserError("the search space suggests nothing; call trial.suggest_float(...) in it.")
    for name, distribution in probe.distributions.items():
        for choice in getattr(distribution, "choices", ()):
            if not isinstance(choice, StoredChoice):
                raise UserError(
                    f"{name} has the choice {choice!r} of type {type(choice).__name__}; choices "
                    "must be None, bool, int, float or str."
                )
    suggested = base.replace(**probe.params)
    if config != suggested:
        expected = suggested.model_dump()
        changed = [key for key, value in config.model_dump().items() if value != expected[key]]
        raise UserError(
            f"the search space changes {', '.join(sorted(changed))} without suggesting it; put "
            "fixed fields into the base config, and name each suggested parameter as its field."
        )
    return probe.distributions


def describe(space: Space, base: Config, first: dict[str, Any] | None = None) -> dict[str, str]:
    """Return each parameter's range as JSON, to be stored and compared at the next launch.

    Args:
        first: parameters of the first trial.

    Raises:
        UserError: an end of a range, a choice or the first trial is not a valid config.
    """
    found = distributions(space, base)
    for name, distribution in found.items():
        for value in _extremes(distribution):
            _check(base, {name: value}, f"the search space holds {name}={value!r}")
    if first is not None:
        _check(base, first, "the first trial is not valid")
    return {name: distribution_to_json(d) for name, d in sorted(found.items())}


def _extremes(distribution: BaseDistribution) -> Sequence[Any]:
    """Return all choices, or the ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution.choices
    return distribution.low, distribution.high  # type: ignore[attr-defined]


def _check(base: Config, params: dict[str, Any], where: str) -> None:
    try:
        base.replace(**params)
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def largest_config(space: Space, base: Config) -> Config:
    """Return the config of the space that needs the most memory."""
    found = distributions(space, base).items()
    return base.replace(**{name: max(_extremes(d)) for name, d in found if name in SIZE_FIELDS})


def envelope(space: Space, base: Config) -> Envelope:
    """Return the smallest envelope that holds every config of the space."""
    from makemore.engines import Envelope  # loads torch, which takes seconds

    return Envelope.around(largest_config(space, base))


def outside(space: Space, base: Config, params: Mapping[str, Any]) -> list[str]:
    """Return the names of those parameters whose value the space cannot suggest."""
    known = distributions(space, base)
    return [
        name for name, value in params.items() if name in known and not _has(known[name], value)
    ]


def _has(distribution: BaseDistribution, value: Any) -> bool:
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except ValueError:  # not one of the choices
        return False


# ---- ranges of --range


def with_ranges(space: Space, base: Config, ranges: Mapping[str, str]) -> Space:
    """Return the space with other ranges for some parameters; log and step stay.

    Args:
        space: the space of the script.
        base: the fixed fields.
        ranges: LOW:HIGH, or A,B,C for choices, by the name of the parameter.

    Raises:
        UserError: the space does not suggest a parameter, or a range cannot be used.
    """
    if not ranges:
        return space
    known = distributions(space, base)
    bounds = {name: _bounds(name, text, known, base) for name, text in ranges.items()}

    def ranged(trial: optuna.Trial, base: Config) -> Config:
        return space(cast(optuna.Trial, _RangedTrial(trial, bounds)), base)

    return ranged


class _RangedTrial:
    """A trial that suggests within other bounds than the space asks for."""

    def __init__(self, trial: optuna.Trial, bounds: Mapping[str, Sequence[Any]]) -> None:
        self._trial = trial
        self._bounds = bounds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._trial, name)

    def suggest_float(self, name: str, low: float, high: float, **options: Any) -> float:
        low, high = self._bounds.get(name, (low, high))
        return self._trial.suggest_float(name, low, high, **options)

    def suggest_int(self, name: str, low: int, high: int, **options: Any) -> int:
        low, high = self._bounds.get(name, (low, high))
        return self._trial.suggest_int(name, low, high, **options)

    def suggest_categorical(self, name: str, choices: Sequence[Any]) -> Any:
        return self._trial.suggest_categorical(name, self._bounds.get(name, choices))


def _bounds(
    name: str, text: str, known: Mapping[str, BaseDistribution], base: Config
) -> Sequence[Any]:
    """Return the choices, or the lower and the upper edge, that a text of --range gives."""
    flag = f"--range {name}={text}"
    if name not in known:
        raise UserError(f"{flag}: this study does not search {name}; {_nearest(name, known)}.")
    old: Any = known[name]
    if isinstance(old, CategoricalDistribution):
        values = _parse_choices(flag, name, text, old.choices)
    else:
        values = _parse_edges(flag, name, text, int if isinstance(old, IntDistribution) else float)
    for value in values:
        try:
            base.replace(**{name: value})
        except UserError as error:
            raise UserError(f"{flag}: {error}") from None
    if not isinstance(old, CategoricalDistribution):
        _check_edges(flag, name, values, old)
    return values


def _nearest(name: str, known: Collection[str]) -> str:
    nearest = difflib.get_close_matches(name, known, n=1)
    return f"did you mean {nearest[0]}" if nearest else f"it searches {', '.join(sorted(known))}"


def _parse_choices(flag: str, name: str, text: str, old: Sequence[Any]) -> list[Any]:
    if ":" in text:
        raise UserError(f"{flag}: {name} has choices; give --range {name}=A,B,C.")
    named = {str(choice).lower(): choice for choice in old}
    kind = type(old[0])
    choices = []
    for word in text.split(","):
        if word.lower() in named:
            choices.append(named[word.lower()])
        elif kind in (int, float):
            choices.append(_parse_number(flag, word, kind))
        else:
            choices.append(word)  # Config accepts or refuses it
    if len(set(choices)) < len(choices):
        raise UserError(f"{flag}: a choice is given twice; give each choice once.")
    return choices


def _parse_edges(flag: str, name: str, text: str, kind: type) -> list[Any]:
    words = text.split(":")
    if len(words) != 2:
        raise UserError(f"{flag}: {name} has a range; give --range {name}=LOW:HIGH.")
    return [_parse_number(flag, word, kind) for word in words]


def _parse_number(flag: str, word: str, kind: type) -> Any:
    try:
        return kind(word)
    except ValueError:
        expected = "an integer" if kind is int else "a number"
        raise UserError(f"{flag}: {word!r} is not {expected}.") from None


def _check_edges(flag: str, name: str, values: Sequence[Any], old: Any) -> None:
    """Check that the edges are in order, and that the range's log or step allows them."""
    low, high = values
    if low >= high:
        raise UserError(f"{flag}: the lower edge {low} must be below the upper edge {high}.")
    if old.log and low <= 0:
        raise UserError(f"{flag}: {name} is searched in log, so {low} must be greater than 0.")
    if old.step is None:
        return
    n_steps = (high - low) / old.step
    if not math.isclose(n_steps, round(n_steps), rel_tol=1e-9):
        fitting = low + max(1, math.floor(n_steps)) * old.step
        raise UserError(
            f"{flag}: {name} is searched in steps of {old.step}, which do not lead from {low} to "
            f"{high}; give for example --range {name}={low}:{fitting:.12g}."
        )
