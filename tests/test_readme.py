"""Every command of README.md and docs/own-study.md runs as printed, in a copy of the project.

Budgets come from the environment (MAKEMORE_STEPS and the like set the default of a flag), so the
commands themselves are not changed.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.conftest import ROOT

BIN = Path(sys.executable).parent
PAGES = ["README.md", "docs/own-study.md"]
# These serve until they are stopped; the number is the port on which they answer.
SERVERS = {"make ui": 5000, "mlflow models serve": 5100}


def code_blocks(text: str, language: str = "") -> list[str]:
    """Return the contents of the fenced blocks of one language."""
    blocks = re.findall(r"^```(\w*)\n(.*?)^```", text, flags=re.M | re.S)
    return [content for found, content in blocks if found == language]


def commands(text: str) -> list[str]:
    """Return the command lines of the blocks without a language, in order."""
    lines = [line for block in code_blocks(text) for line in block.splitlines()]
    starts = ("make ", "python ", "export ", "mlflow ")
    return [line.split("  #")[0].strip() for line in lines if line.startswith(starts)]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project's files with this environment as its .venv, installed already."""
    folder = tmp_path_factory.mktemp("checkout")
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    (folder / ".venv").mkdir()
    for name in ("bin", "lib", "pyvenv.cfg"):
        (folder / ".venv" / name).symlink_to(BIN.parent / name)
    (folder / ".venv" / ".study").touch()  # Make's mark of a finished installation
    return folder


@pytest.fixture
def environment(checkout: Path) -> dict[str, str]:
    return {
        **os.environ,
        "PATH": f"{BIN}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "MAKEMORE_STEPS": "40",
        "MAKEMORE_TRIALS": "4",
        "MAKEMORE_REPEATS": "2",
        "MAKEMORE_BROWSER": "false",
    }


@pytest.mark.slow
@pytest.mark.server
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", PAGES)
def test_commands_run_as_printed(page: str, checkout: Path, environment: dict[str, str]) -> None:
    text = (checkout / page).read_text(encoding="utf-8")
    lines = commands(text)
    assert lines
    saved = re.findall(r"Save it as `(studies/\w+\.py)`", text)
    for name, code in zip(saved, code_blocks(text, "python"), strict=True):
        (checkout / name).write_text(code, encoding="utf-8")

    for line in lines:
        if line.startswith("export "):
            name, value = line.removeprefix("export ").split("=", maxsplit=1)
            environment[name] = value
            continue
        server = next((port for start, port in SERVERS.items() if line.startswith(start)), None)
        if server is not None:
            check_server(line, server, checkout, environment)
            continue
        done = subprocess.run(
            line, shell=True, cwd=checkout, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"


def check_server(line: str, port: int, folder: Path, environment: dict[str, str]) -> None:
    """Start a server, wait until it answers, and stop its process group."""
    if answers(port):
        pytest.skip(f"port {port} is taken, so {line!r} cannot be tried")
    log = folder / "server.log"
    with log.open("w") as output:
        server = subprocess.Popen(
            f"exec {line}",
            shell=True,
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + 120
        while not answers(port):
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.2)
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(30)
    for _ in wait_until_closed(port):
        pass


def wait_until_closed(port: int) -> Iterator[None]:
    """Wait until nothing answers on a port any more."""
    deadline = time.monotonic() + 30
    while answers(port):
        assert time.monotonic() < deadline, f"port {port} still answers"
        time.sleep(0.2)
        yield


def answers(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_readme_is_short() -> None:
    words = (ROOT / "README.md").read_text(encoding="utf-8").split()
    assert len(words) < 800


@pytest.mark.parametrize("page", ["README.md", "CONTRIBUTING.md", "docs/api.md", *PAGES[1:]])
def test_links_lead_to_files(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    targets = re.findall(r"\]\((?!https?://)([^)#]+)\)", text)
    missing = [target for target in targets if not ((ROOT / page).parent / target).exists()]
    assert missing == []


def test_readme_names_every_script() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    scripts = [
        path
        for folder in ("studies", "experiments")
        for path in (ROOT / folder).glob("*.py")
        if "run_script(" in path.read_text(encoding="utf-8")
    ]
    assert scripts
    assert [path.name for path in scripts if path.name not in text] == []


def test_map_of_the_harness_is_complete() -> None:
    folder = ROOT / "studies" / "harness"
    rows = {}
    for line in (folder / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            room = line.removeprefix("## ").split(":")[0]
        elif line.startswith("| `"):
            rows[f"{room}/{line.split('`')[1]}"] = line

    files = {str(path.relative_to(folder)) for path in folder.rglob("*.py")}
    assert set(rows) == {name for name in files if not name.endswith("__init__.py")}
