"""Fixtures and helpers of all tests: words, corpora, and scripts run in this process or another."""

from __future__ import annotations

import json
import os
import runpy
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from makemore.data import Corpus, Examples, load_corpus
from makemore.words import Vocab, split_words

ROOT = Path(__file__).resolve().parents[1]

# Thirty words are enough for a split (24 / 3 / 3) and small enough to check by hand.
WORDS = (
    "emma olivia ava isabella sophia charlotte mia amelia harper evelyn abigail emily elizabeth "
    "mila ella avery sofia camila aria scarlett victoria madison luna grace chloe penelope layla "
    "riley zoey nora"
).split()


@dataclass(frozen=True)
class Ran:
    """The exit code and the output of a script."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        """The JSON object in the last line of standard output."""
        return json.loads(self.out.splitlines()[-1])

    @property
    def refusal(self) -> str:
        """The one sentence of a script that refused its input."""
        assert (self.code, self.out, len(self.err.splitlines())) == (2, "", 1), self
        return self.err.strip()


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests with a real server or browser as slow: `-m "not slow"` leaves them out."""
    for item in items:
        if item.get_closest_marker("server") or item.get_closest_marker("browser"):
            item.add_marker("slow")


# ---- words


def write_small_names(path: Path) -> Path:
    """Write a few hundred made-up words, so that a trial takes milliseconds."""
    words = [a[:i] + b for a in WORDS for b in WORDS for i in (2, 3)]
    path.write_text("\n".join(words)[:4000] + "\n")
    return path


@pytest.fixture(scope="session")
def words() -> list[str]:
    return list(WORDS)


@pytest.fixture(scope="session")
def small_corpus() -> Corpus:
    """A corpus of the thirty words: 24 in train, 3 in dev."""
    vocab = Vocab.of(WORDS)
    split = split_words(WORDS)
    return Corpus(
        vocab,
        Examples.of(split.train, vocab),
        Examples.of(split.dev, vocab),
        "0" * 64,
        "thirty words",
    )


@pytest.fixture(scope="session")
def corpus() -> Corpus:
    """The embedded names."""
    return load_corpus()


@pytest.fixture(scope="session")
def lecture_names() -> Path:
    """The lecture's own file of names, which is not part of the project."""
    default = ROOT.parent / "shared" / "data" / "lecture" / "names.txt"
    path = Path(os.environ.get("MAKEMORE_LECTURE_NAMES", default))
    if not path.exists():
        pytest.skip(
            f"no names.txt of the lecture at {path}; set MAKEMORE_LECTURE_NAMES to its path"
        )
    return path


CHROMIUM_FLAGS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run "
    "--disable-background-networking --disable-component-update --disable-sync "
    "--disable-dev-shm-usage"
).split()


@contextmanager
def chromium(profile: Path, *, offline: bool = False) -> Iterator[Any]:
    """Run a headless Chromium with a new profile, driven by selenium; skip if there is none."""
    webdriver = pytest.importorskip(
        "selenium.webdriver", reason="selenium is not installed (the test extra has it)"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    binary = next(filter(None, map(shutil.which, names)), None)
    driver = shutil.which("chromedriver")
    if binary is None or driver is None:
        pytest.skip(
            "no Chromium with its driver (Debian: apt-get install chromium chromium-driver)"
        )
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    for flag in (*CHROMIUM_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    browser = webdriver.Chrome(options=options, service=webdriver.ChromeService(driver))
    try:
        if offline:
            limits = {"latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
            browser.execute_cdp_cmd("Network.enable", {})
            browser.execute_cdp_cmd("Network.emulateNetworkConditions", {"offline": True, **limits})
        yield browser
    finally:
        browser.quit()


def resize(browser: Any, width: int, height: int = 1000) -> None:
    """Set the size of a browser's page in pixels; below a width of 600 it is a phone."""
    size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)


@pytest.fixture(autouse=True)
def one_torch_thread() -> None:
    torch.set_num_threads(1)


# ---- scripts


@pytest.fixture
def run_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Ran]:
    """Run a script of the project in this process: run_file("studies/compare.py", "mlp")."""

    def run_file(script: str, *flags: object) -> Ran:
        monkeypatch.setattr(sys, "argv", [script, *map(str, flags)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as stopped:
            runpy.run_path(str(ROOT / script), run_name="__main__")
        output = capsys.readouterr()
        return Ran(int(stopped.value.code or 0), output.out, output.err)

    return run_file


def start(
    script: str,
    *flags: object,
    folder: Path | None = None,
    patches: Mapping[str, object] | None = None,
) -> subprocess.Popen[str]:
    """Start a script of the project as a user would, in its own process group.

    Args:
        folder: the working directory; by default the one of this process.
        patches: other values of some constants, see tests/patched.py.
    """
    patched = [str(ROOT / "tests" / "patched.py"), json.dumps(patches)] if patches else []
    return subprocess.Popen(
        [sys.executable, *patched, str(ROOT / script), *map(str, flags)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], timeout: float = 120) -> Ran:
    """Wait for the end of a started script; one that takes longer is killed."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        raise
    return Ran(process.returncode, out, err)


def wait_for(condition: Callable[[], object], seconds: float = 60) -> None:
    """Wait until a condition is true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"not true within {seconds:g} s"
        time.sleep(0.05)


def free_port() -> int:
    """Return a port of 127.0.0.1 that no process listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
