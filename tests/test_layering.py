"""Imports go downward only: between the three packages, and between the rooms of the harness."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
HARNESS = "studies.harness"
REPORT = f"{HARNESS}.report"

FORBIDDEN = {
    "makemore": {"optuna", "mlflow", "studies", "experiments"},
    "studies": {"experiments"},
}

# Each floor may import the floors before it. Rooms on one floor may not import each other.
HARNESS_FLOORS = [["store"], ["cli", "tracking"], ["report"], ["search"], ["api"]]
TRACKING = f"{HARNESS}.tracking"
TRACKING_FLOORS = [
    ["connection", "fields", "server", "views"],
    ["models", "runs", "stored"],
    ["sending", "whole_runs"],
    ["repairs"],
]
REPORT_FLOORS = [
    ["best_so_far", "export", "importance", "scales", "thinned"],
    ["results"],
    ["compare"],
    ["judge"],
    ["figures"],
    ["page"],
    ["build"],
]


def imported_modules(path: Path) -> set[str]:
    """Return the full names that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def upward_imports(folder: Path, package: str, floors: list[list[str]]) -> list[str]:
    """Return the imports between rooms of a package that do not go downward."""
    floor_of = {room: level for level, rooms in enumerate(floors) for room in rooms}
    wrong = []
    for path in sorted(folder.rglob("*.py")):
        room = path.relative_to(folder).parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for name in imported_modules(path):
            if not name.startswith(f"{package}."):
                continue
            other = name.removeprefix(f"{package}.").split(".")[0]
            if other != room and floor_of[other] >= floor_of[room]:
                wrong.append(f"{path.relative_to(folder)} imports {name}")
    return wrong


@pytest.mark.parametrize("package", FORBIDDEN)
def test_packages_import_downward(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files

    wrong = {}
    for path in files:
        roots = {name.split(".")[0] for name in imported_modules(path)}
        if found := roots & FORBIDDEN[package]:
            wrong[str(path.relative_to(ROOT))] = found

    assert wrong == {}


def test_harness_rooms_import_downward() -> None:
    assert upward_imports(ROOT / "studies" / "harness", HARNESS, HARNESS_FLOORS) == []


def test_report_rooms_import_downward() -> None:
    assert upward_imports(ROOT / "studies" / "harness" / "report", REPORT, REPORT_FLOORS) == []


def test_tracking_rooms_import_downward() -> None:
    folder = ROOT / "studies" / "harness" / "tracking"
    assert upward_imports(folder, TRACKING, TRACKING_FLOORS) == []


@pytest.mark.parametrize(
    ("package", "floors"),
    [
        ("harness", HARNESS_FLOORS),
        ("harness/report", REPORT_FLOORS),
        ("harness/tracking", TRACKING_FLOORS),
    ],
)
def test_every_room_has_a_floor(package: str, floors: list[list[str]]) -> None:
    folder = ROOT / "studies" / package
    rooms = {path.stem for path in folder.glob("*.py")}
    rooms |= {path.parent.name for path in folder.glob("*/*.py")}

    assert rooms - {"__init__"} == {room for rooms_of_floor in floors for room in rooms_of_floor}


def test_folders_hold_at_most_nine_modules() -> None:
    folders = [ROOT / "makemore" / "engines", ROOT / "studies" / "harness"]
    crowded = {}
    for top in folders:
        for folder in [top, *(path for path in top.rglob("*") if path.is_dir())]:
            modules = [path for path in folder.glob("*.py") if path.stem != "__init__"]
            if len(modules) > 9:
                crowded[str(folder.relative_to(ROOT))] = len(modules)

    assert crowded == {}


def test_upward_import_is_found(tmp_path: Path) -> None:
    (tmp_path / "low").mkdir()
    (tmp_path / "high").mkdir()
    (tmp_path / "low" / "a.py").write_text("def f():\n    from pkg.high.b import x\n")
    (tmp_path / "high" / "b.py").write_text("from pkg.low import a\n")

    assert upward_imports(tmp_path, "pkg", [["low"], ["high"]]) == ["low/a.py imports pkg.high.b.x"]


def test_makemore_loads_no_study_library() -> None:
    program = """
import importlib, pkgutil, sys, makemore
names = [module.name for module in pkgutil.walk_packages(makemore.__path__, "makemore.")]
for name in names:
    importlib.import_module(name)
heavy = {"optuna", "mlflow", "studies", "experiments", "matplotlib", "pandas"}
print(len(names), sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    n_modules, loaded = done.stdout.split(maxsplit=1)
    assert int(n_modules) >= len(list((ROOT / "makemore").glob("*.py"))) - 1
    assert loaded.strip() == "[]"


def test_scripts_import_the_interrupt_hook_first() -> None:
    first = "from __future__ import annotations\n\nimport makemore.interrupt"
    for folder in ("studies", "experiments"):
        for path in (ROOT / folder).glob("*.py"):
            text = path.read_text(encoding="utf-8")
            assert "run_script(" not in text or first in text, path
