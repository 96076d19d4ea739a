"""Calls from Python: they leave the process as it was, and name arguments instead of flags."""

from __future__ import annotations

import gc
import os
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import ClassVar

from makemore.errors import Outage, UserError
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.outages import describe_outage
from studies.harness.cli.script import collect_seldom, uninterrupted

# Flags in messages, and the names of their arguments in Python.
ARGUMENTS = {
    "--study": "name",
    "--range": "ranges",
    "--out": "path",
    "--force": "force=True",
    "--finish-best": "finish_best=True",
}


@dataclass(kw_only=True)
class PythonArgs(StudyArgs):
    """The settings of a study that a call from Python gives."""

    from_script: ClassVar[bool] = False
    evaluations: int = 10
    """Evaluations of each trial, evenly spaced; scripts set them in their code."""


@contextmanager
def called_from_python(args: PythonArgs) -> Iterator[None]:
    """Restore the process after the block, and raise its errors for a reader of Python.

    Args:
        args: storage and tracking_uri are read, to name them if one fails.

    Raises:
        UserError: as in the block; its message names arguments instead of flags.
        Outage: a database or a server failed.
    """
    with restored():
        try:
            yield
        except UserError as error:
            error.args = (in_python(str(error)),)
            raise
        except Exception as error:
            sentence = describe_outage(error, args)
            if sentence is None:
                raise
            again = sentence.replace("run the same command", "make the same call")
            raise Outage(again) from error


def in_python(sentence: str) -> str:
    """Return a message with the names of arguments in place of flags."""

    def name(match: re.Match[str]) -> str:
        return ARGUMENTS.get(match[0], match[0].removeprefix("--").replace("-", "_"))

    # A class is an argument, so its file has no use in Python.
    sentence = re.sub(r"--model '?[^:]*:(\w+)'?", r"model=\1", sentence)
    return re.sub(r"(?<![\w-])--[a-z][a-z-]*", name, sentence)


@contextmanager
def restored() -> Iterator[None]:
    """Restore the environment, and the settings of Python, torch and Optuna after the block."""
    with uninterrupted(), warnings.catch_warnings():
        # Optuna loads a progress bar, which in a notebook asks for widgets; nothing here uses it.
        warnings.filterwarnings("ignore", message="IProgress not found")
        import optuna
        import torch

    environment = dict(os.environ)
    collection, has_frozen = gc.get_threshold(), gc.get_freeze_count() > 0
    collect_seldom()  # as in a script; the search for garbage would slow it down
    threads = torch.get_num_threads()
    verbosity = optuna.logging.get_verbosity()
    try:
        yield
    finally:
        gc.set_threshold(*collection)
        if not has_frozen:
            gc.unfreeze()
        torch.set_num_threads(threads)
        optuna.logging.set_verbosity(verbosity)
        for name in os.environ.keys() - environment.keys():
            del os.environ[name]
        os.environ.update(environment)
