"""The character-level model and its training. docs/api.md describes the names below.

The names are imported when they are first used, because torch takes seconds to import.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from makemore.checkpoint import load_checkpoint, save_checkpoint
    from makemore.config import Config, read_config
    from makemore.data import Corpus, build_dataset, load_corpus
    from makemore.errors import UserError
    from makemore.evaluation import evaluate
    from makemore.lr_sweep import lr_range_test
    from makemore.model import MLP
    from makemore.sampling import sample_words
    from makemore.trainer import train

__all__ = [
    "MLP",
    "Config",
    "Corpus",
    "UserError",
    "build_dataset",
    "evaluate",
    "load_checkpoint",
    "load_corpus",
    "lr_range_test",
    "read_config",
    "sample_words",
    "save_checkpoint",
    "train",
]

_MODULES = {
    "MLP": "model",
    "Config": "config",
    "Corpus": "data",
    "UserError": "errors",
    "build_dataset": "data",
    "evaluate": "evaluation",
    "load_checkpoint": "checkpoint",
    "load_corpus": "data",
    "lr_range_test": "lr_sweep",
    "read_config": "config",
    "sample_words": "sampling",
    "save_checkpoint": "checkpoint",
    "train": "trainer",
}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f"makemore.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
