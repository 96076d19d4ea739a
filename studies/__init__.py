"""Hyperparameter search: `search` runs a study, and `Study` reads one. docs/api.md describes both.

The names are imported when they are first used, because scripts import this package too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from studies.harness.api.plots import Page, Picture
    from studies.harness.api.search import search
    from studies.harness.api.study import Best, Study

__all__ = ["Best", "Page", "Picture", "Study", "search"]

_MODULES = {"Best": "study", "Page": "plots", "Picture": "plots", "Study": "study"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"studies.harness.api.{_MODULES.get(name, name)}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
