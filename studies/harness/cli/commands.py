"""Commands for the user to run next, ready to paste."""

from __future__ import annotations

import os
import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.text import Text

from studies.harness.store.paths import ROOT
from studies.harness.store.text import without_password

if TYPE_CHECKING:
    pass


def print_next(console: Console, *steps: tuple[str, str, list[str]]) -> None:
    """Commands that can be pasted, each with what it is for."""
    console.print("\nNext:", style="bold")
    for purpose, script, arguments in steps:
        line = Text.assemble("  ", shell_command(script, arguments), (f"  # {purpose}", "dim"))
        console.print(line, soft_wrap=True)


def store_flags(args: Any, *, storage: bool = True) -> list[str]:
    """The flags that lead another script to the same stores; a password in them is shown as ***."""
    named = {"--storage": args.storage if storage else None, "--tracking-uri": args.tracking_uri}
    return [
        word for flag, value in named.items() if value for word in (flag, without_password(value))
    ]


def shell_command(script: str, arguments: list[str]) -> str:
    """A command that runs a script of this project with this interpreter, as short as it can be from this folder."""
    python = Path(sys.executable)
    found = shutil.which("python")
    if found and Path(found).parent == python.parent:
        shown = "python"
    else:
        shown = (
            str(python.relative_to(Path.cwd()))
            if python.is_relative_to(Path.cwd())
            else str(python)
        )
    return shlex.join([shown, os.path.relpath(ROOT / script), *arguments])
