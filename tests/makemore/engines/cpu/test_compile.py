"""Compilation and caching of the CPU kernel, and its messages; in new processes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

MODULE = """
import os, pathlib
from makemore.engines.cpu.compile import EntryPoint

def make(sources):
    def add(a, b):
        _ = sources
        return a + b
    return add

add = EntryPoint(make(int(os.environ.get("SOURCES", "1"))))
first = add(2, 3)
if os.environ.get("LATE"):
    cache = pathlib.Path(__file__).with_name("__pycache__")
    for file in cache.iterdir():
        file.unlink()
    cache.rmdir()
    cache.write_text("a file in the folder's place")
print(first, add(2.0, 3.0))
"""
COMPILING = "Compiling the CPU kernel: once"
NOT_CACHED = "machine code cannot be cached on disk; set NUMBA_CACHE_DIR"


@pytest.fixture
def script(tmp_path: Path) -> Path:
    script = tmp_path / "module.py"
    script.write_text(MODULE)
    return script


def run(script: Path, **variables: str) -> str:
    """Run the module and return its output on stderr."""
    environment = {name: value for name, value in os.environ.items() if name != "NUMBA_CACHE_DIR"}
    environment |= {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **variables}
    done = subprocess.run(
        [sys.executable, "-B", script],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stdout == "5 5.0\n"
    return done.stderr


def test_only_the_first_process_compiles(script: Path) -> None:
    assert run(script).count(COMPILING) == 1
    assert run(script) == ""
    # A different source number means that a file of the kernel has changed.
    assert COMPILING in run(script, SOURCES="2")


def test_every_process_compiles_without_cache_folder(script: Path) -> None:
    # This works for root too: a file in place of the folder, and a home in a read-only tree.
    script.with_name("__pycache__").write_text("")
    homeless = {"HOME": "/proc/none", "XDG_CACHE_HOME": "/proc/none", "LOCALAPPDATA": "/proc/none"}

    for _ in range(2):
        printed = run(script, **homeless)
        assert printed.count(NOT_CACHED) == 1 and printed.count(COMPILING) == 1
        assert len(printed.splitlines()) == 2


def test_deleted_cache_folder_is_not_fatal(script: Path) -> None:
    printed = run(script, LATE="1")

    assert printed.count(NOT_CACHED) == 1 and len(printed.splitlines()) == 2


TRAINING = """
from makemore.config import Config
from makemore.data import load_corpus
from makemore.trainer import train

base = Config(n_hidden=48, batch_size=64, max_steps=60, eval_interval=20, init="kaiming")
base = base.replace(weight_decay=0.1, ema=0.1)
adamw = {"lr": 0.01, "optimizer": "adamw", "dropout": 0.1, "direct": True, "block_size": 5}
for changes in ({"lr": 0.5}, adamw):
    print(train(base.replace(**changes), load_corpus(), device="cpu").history)
"""


@pytest.mark.slow
def test_compiled_and_cached_code_round_equally(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "NUMBA_CACHE_DIR": str(tmp_path)}
    ran = [
        subprocess.run(
            [sys.executable, "-c", TRAINING],
            env=environment,
            capture_output=True,
            text=True,
            timeout=300,
            check=True,
        )
        for _ in range(2)
    ]

    assert [COMPILING in done.stderr for done in ran] == [True, False]
    assert ran[0].stdout == ran[1].stdout and "dev_loss" in ran[0].stdout
