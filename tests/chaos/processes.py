"""Starts scripts of the project as processes of their own, to kill, stop and wait for.

A launch is forked from a process that has imported the libraries, because a new interpreter spends
five seconds on imports, in which no fault can hit anything.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import runpy
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.context import ForkServerContext
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PRELOAD = [
    "makemore.engines.cpu.engine",
    "mlflow.store.artifact.artifact_repository_registry",
    "mlflow.store.tracking.sqlalchemy_store",
    "mlflow.tracking.context.registry",
    "studies.harness.report.build",
    "studies.harness.report.page.note",
    "studies.harness.search.finish",
    "studies.harness.search.launch",
    "studies.harness.search.opening",
    "studies.harness.search.session",
]
HANG = 120.0  # seconds; a process that takes longer is killed, and the schedule fails


def forking() -> ForkServerContext:
    """Return the context of the process that has imported the libraries; it starts once."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    return context


@dataclass
class Script:
    """A running script of the project."""

    process: multiprocessing.process.BaseProcess
    name: str
    output: Path

    @property
    def code(self) -> int | None:
        """The exit code; None while the script runs, -9 after a SIGKILL."""
        return self.process.exitcode

    def send(self, number: signal.Signals) -> bool:
        """Send a signal; returns whether the script was still running."""
        if self.code is not None or self.process.pid is None:
            return False
        os.kill(self.process.pid, number)
        return True

    def wait(self) -> bool:
        """Wait for the end; returns False if the script hung and was killed."""
        self.process.join(HANG)
        if self.code is not None:
            return True
        self.process.kill()
        self.process.join()
        return False

    @property
    def text(self) -> str:
        """What it printed so far."""
        return self.output.read_text(errors="replace") if self.output.exists() else ""


def start(
    script: str, *flags: object, folder: Path, output: Path, cold: bool, max_file: int | None = None
) -> Script:
    """Start a script of the project in a folder.

    Args:
        script: path in the project.
        flags: its command line.
        folder: its working directory.
        output: file for its output and errors.
        cold: start a new interpreter instead of a fork.
        max_file: largest size of a file that it can write, in bytes.
    """
    command = [str(ROOT / script), *map(str, flags)]
    process = forking().Process(
        target=_run, args=(command, str(folder), str(output), cold, max_file), daemon=True
    )
    process.start()
    return Script(process, Path(script).stem, output)


def _run(command: list[str], folder: str, output: str, cold: bool, max_file: int | None) -> None:
    """Become the script. This runs in the child."""
    os.setsid()
    os.chdir(folder)
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(file, 1)
    os.dup2(file, 2)
    if max_file is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file, resource.RLIM_INFINITY))
    if cold:
        os.execv(sys.executable, [sys.executable, *command])
    sys.argv = command
    runpy.run_path(command[0], run_name="__main__")


def wait_until(condition: Callable[[], object], script: Script, seconds: float = HANG) -> bool:
    """Wait until a condition is true; returns False if the script ends before."""
    deadline = time.monotonic() + seconds
    while not condition():
        if script.code is not None or time.monotonic() > deadline:
            return False
        time.sleep(0.005)
    return True
