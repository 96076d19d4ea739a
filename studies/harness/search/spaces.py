"""Search spaces: functions (trial, base) -> Config, and their description for the storage."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, distribution_to_json

from makemore.config import Config
from makemore.engines import Envelope
from makemore.errors import UserError

Space = Callable[[optuna.Trial, Config], Config]

# The fields that decide how much memory a model needs.
SIZE_FIELDS = ("block_size", "n_embd", "n_hidden", "batch_size", "direct", "dropout", "ema")


def distributions(space: Space, base: Config) -> dict[str, BaseDistribution]:
    """Return the distribution of each parameter that the space suggests.

    Raises:
        UserError: the space sets fields that it does not suggest, or changes a suggested value.
            Then a trial's parameters would not reproduce its config.
    """
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    probe = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0)).ask()
    optuna.logging.set_verbosity(verbosity)

    config = space(probe, base)
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
    return Envelope.around(largest_config(space, base))
