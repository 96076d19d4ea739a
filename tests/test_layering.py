"""Imports go one way: makemore <- studies <- experiments; makemore knows neither optuna nor mlflow."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FORBIDDEN = {
    "makemore": {"optuna", "mlflow", "studies", "experiments"},
    "studies": {"experiments"},
}


def imported(path: Path) -> set[str]:
    """Top-level packages that a file imports, anywhere in it."""
    roots = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            # A relative import stays within its package.
            roots |= {node.module.split(".")[0]} if node.module and not node.level else set()
    return roots


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_file_imports_what_stands_above_it(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files

    wrong = {str(path.relative_to(ROOT)): found for path in files if (found := imported(path) & FORBIDDEN[package])}

    assert wrong == {}


def test_the_scan_sees_imports_inside_functions_and_from_submodules(tmp_path: Path) -> None:
    path = tmp_path / "module.py"
    path.write_text("def f():\n    from mlflow.tracking import MlflowClient\n    import optuna.pruners as p\n")

    assert imported(path) == {"mlflow", "optuna"}


def test_importing_all_of_makemore_loads_neither_optuna_nor_mlflow_nor_a_plotter() -> None:
    program = """
import importlib, pkgutil, sys, makemore
names = [module.name for module in pkgutil.walk_packages(makemore.__path__, "makemore.")]
for name in names:
    importlib.import_module(name)
print(len(names), sorted({"optuna", "mlflow", "studies", "experiments", "matplotlib", "pandas"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)

    n_modules, loaded = done.stdout.split(maxsplit=1)
    assert int(n_modules) >= len(list((ROOT / "makemore").glob("*.py"))) - 1
    assert loaded.strip() == "[]"
