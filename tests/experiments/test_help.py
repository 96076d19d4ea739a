"""--help of each script, in a separate process."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.conftest import ROOT

SLOW_LIBRARIES = {"torch", "mlflow", "optuna", "pandas", "numba"}
SCRIPTS = ["export", "retrain", "ensemble", "distil", "generate", "page"]


@pytest.mark.parametrize("script", SCRIPTS)
def test_help_loads_no_slow_library(script: str) -> None:
    program = f"""
import runpy, sys
sys.argv = ["experiments/{script}.py", "--help"]
try:
    runpy.run_path("experiments/{script}.py", run_name="__main__")
finally:
    print("loaded:", *({SLOW_LIBRARIES} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]

    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    assert (done.returncode, done.stderr) == (0, "")
    assert f"python experiments/{script}.py" in done.stdout
    assert done.stdout.splitlines()[-1] == "loaded:"
