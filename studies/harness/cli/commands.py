"""Commands for the user to run next, ready to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from collections.abc import Sequence
from dataclasses import fields
from itertools import pairwise
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.text import Text

from studies.harness.cli.args import StudyArgs
from studies.harness.store.paths import ROOT
from studies.harness.store.text import without_password


def print_next(console: Console, *steps: tuple[str, str, list[str]]) -> None:
    """Print the commands to run next.

    Args:
        steps: (purpose, script relative to the project's folder, arguments).
    """
    console.print("\nNext:", style="bold")
    for purpose, script, arguments in steps:
        line = Text.assemble("  ", shell_command(script, arguments), (f"  # {purpose}", "dim"))
        console.print(line, soft_wrap=True)


def store_flags(args: Any, *, storage: bool = True) -> list[str]:
    """Return the flags that give another script the same stores, with passwords masked.

    Args:
        args: flags of a script; storage and tracking_uri are read.
        storage: whether to include --storage.
    """
    flags = []
    if storage and args.storage:
        flags += ["--storage", without_password(args.storage)]
    if args.tracking_uri:
        flags += ["--tracking-uri", without_password(args.tracking_uri)]
    return flags


def model_flags(study: Any) -> list[str]:
    """Return the flag that names a study's model to another script; none for the MLP.

    Args:
        study: an optuna.Study.
    """
    source = study.user_attrs.get("model")
    return [] if source is None else ["--model", source]


def shell_command(script: str, arguments: list[str]) -> str:
    """Return a command that runs a script with this interpreter from the current folder.

    Args:
        script: path of the script, relative to the project's folder.
    """
    return shlex.join([_python(), *_script(script), *arguments])


def search_call(study: str, flags: Sequence[str], model: str | None = None) -> str:
    """Return the Python line that does what a study script does with these flags.

    Args:
        study: name of the study.
        flags: of a study script. Flags that only one script has are left out.
        model: FILE.py:CLASS of the study's model; None for the MLP.
    """
    known = {"evaluations", *(field.name for field in fields(StudyArgs))}
    arguments: dict[str, Any] = {}
    words = [*flags, "--"]
    for word, following in pairwise(words):
        if not word.startswith("--"):
            continue
        name = word.removeprefix("--").replace("-", "_")
        if name.removeprefix("no_") not in known:
            continue
        if name == "range":
            parameter, _, values = following.partition("=")
            arguments.setdefault("ranges", {})[parameter] = values
        elif following.startswith("--"):  # a switch
            arguments[name.removeprefix("no_")] = not name.startswith("no_")
        else:
            arguments[name] = _value(following)
    given = ", ".join(f"{name}={value!r}" for name, value in arguments.items())
    if model is not None:
        given = f"model={model.rpartition(':')[2]}, {given}"
    return f"search(space, base, name={study!r}, {given})"


def _value(word: str) -> Any:
    """Return the value of a flag: a number, or else the text."""
    for kind in (int, float):
        try:
            return kind(word)
        except ValueError:
            continue
    return word


def _python() -> str:
    """Return the shortest name of this interpreter: `python` if the shell finds the same one."""
    python = Path(sys.executable)
    found = shutil.which("python")
    if found and Path(found).parent == python.parent:
        return "python"
    if python.is_relative_to(Path.cwd()):
        return str(python.relative_to(Path.cwd()))
    return str(python)


def _script(script: str) -> list[str]:
    """Return the words that run a script: its path, or `-m MODULE` in an installed package."""
    is_checkout = (ROOT / "pyproject.toml").is_file()
    is_ours = script.startswith(("studies/", "experiments/"))
    if is_ours and not is_checkout:
        return ["-m", script.removesuffix(".py").replace("/", ".")]
    return [os.path.relpath(ROOT / script)]
