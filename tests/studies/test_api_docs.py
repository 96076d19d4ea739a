"""The examples of docs/api.md: they run, their types are right, and every public name has one."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import makemore
import studies
from tests.conftest import ROOT

PAGE = ROOT / "docs" / "api.md"


def examples() -> dict[str, str]:
    """Return the code of each section, by the names in its heading."""
    sections = re.split(r"^### ", PAGE.read_text(encoding="utf-8"), flags=re.M)[1:]
    found = {}
    for section in sections:
        heading = section.splitlines()[0]
        blocks = re.findall(r"^```python\n(.*?)^```", section, flags=re.M | re.S)
        assert len(blocks) == 1, heading
        found[heading] = blocks[0]
    return found


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """All examples as one program."""
    path = tmp_path / "page.py"
    path.write_text("\n".join(examples().values()), encoding="utf-8")
    return path


def run(*command: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *command],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=200,
    )


@pytest.mark.parametrize("package", [makemore, studies])
def test_every_public_name_has_an_example(package: object) -> None:
    for name in package.__all__:  # type: ignore[attr-defined]
        code = [code for heading, code in examples().items() if f"`{name}`" in heading]
        assert len(code) == 1 and re.search(rf"\b{name}\b", code[0]), name


def test_every_example_is_about_a_public_name() -> None:
    names = {name for heading in examples() for name in re.findall(r"`(\w+)`", heading)}
    assert names == {*makemore.__all__, *studies.__all__}


@pytest.mark.slow
def test_examples_run_from_top_to_bottom(program: Path, tmp_path: Path) -> None:
    ran = run("page.py", folder=tmp_path)

    assert ran.returncode == 0, ran.stderr
    assert "Winner: trial" in ran.stdout
    assert "did you mean n_hidden" in ran.stdout
    for name in ("best.toml", "history.png", "model.safetensors", "mlruns/reports/mine.html"):
        assert (tmp_path / name).is_file()


@pytest.mark.slow
def test_examples_have_the_right_types(program: Path) -> None:
    pytest.importorskip("mypy", reason="mypy is not installed; pip install -e '.[dev]'")
    ran = run(
        *("-m", "mypy", "--config-file", str(ROOT / "pyproject.toml"), str(program)), folder=ROOT
    )
    assert ran.returncode == 0, ran.stdout
