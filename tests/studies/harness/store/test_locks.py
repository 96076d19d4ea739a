"""Locks between processes that share one mlruns/."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from studies.harness.store.locks import exclusive
from tests.conftest import ROOT

PROGRAM = """
from studies.harness.store.locks import exclusive
print("asks", flush=True)
with exclusive("{name}"):
    print("has it", flush=True)
"""


def rest_of(process: subprocess.Popen[str]) -> str:
    """Return the output of a process until its end."""
    with process:
        assert process.stdout
        return process.stdout.read()


def ask_for(name: str) -> subprocess.Popen[str]:
    """Start another process that takes a lock; its first line says that it asks for it."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", PROGRAM.format(name=name)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout and process.stdout.readline() == "asks\n"
    return process


def test_other_process_waits_for_the_end_of_the_block(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with exclusive("a"):
        waiting = ask_for("a")
        with pytest.raises(subprocess.TimeoutExpired):
            waiting.wait(0.5)

    assert rest_of(waiting) == "has it\n"


def test_locks_of_other_names_do_not_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with exclusive("a"):
        assert rest_of(ask_for("b")) == "has it\n"
