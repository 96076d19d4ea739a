"""The MLflow UI's server, really started on a free port and really stopped, and what the script refuses."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from studies.harness.tracking import server
from studies.harness.tracking.client import connect, find_runs, get_experiment
from studies.harness.tracking.views import view_link
from tests.conftest import ROOT

UI = "studies/ui.py"


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(*flags: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """The script as a process, which the end of the block stops if the test did not."""
    clean = {
        name: value
        for name, value in os.environ.items()
        if name not in ("DISPLAY", "WAYLAND_DISPLAY")
    }
    command = [sys.executable, str(ROOT / UI), *flags]
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, env={**clean, **environment}, **pipes) as process:
        try:
            yield process
        finally:
            process.terminate()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def children_of(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    listed = subprocess.run(
        ["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True
    ).stdout
    pairs = [tuple(map(int, line.split())) for line in listed.splitlines()]
    return [child for child, parent in pairs if parent == pid]


def group_is_gone(leader: int) -> bool:
    try:
        os.killpg(leader, 0)
    except ProcessLookupError:
        return True
    return False


def wait_for(path: Path) -> None:
    """Wait up to ten seconds for a file that another process writes."""
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)


def browser_that_notes(folder: Path) -> tuple[dict[str, str], Path]:
    """An environment whose browser writes the address that it is given to a file."""
    program, note = folder / "browser.sh", folder / "opened.txt"
    program.write_text(f'#!/bin/sh\necho "$1" >> {note}\n')
    program.chmod(0o755)
    return {"BROWSER": f"{program} %s", "DISPLAY": ":77"}, note


@pytest.mark.server
def test_it_serves_opens_the_study_and_leaves_nothing_behind(
    launch: Callable[..., int], run_file: Any, workdir: Path
) -> None:
    launch(trials=2)
    port = a_free_port()
    client = connect(None)
    experiment_id = get_experiment(client, "small")
    link = view_link(f"http://127.0.0.1:{port}", experiment_id)
    browser, note = browser_that_notes(workdir)
    with started("small", "--port", str(port), "--json", **browser) as ui:
        assert ui.stdout and ui.stderr
        assert ui.stdout.readline().strip() == f"Trials by dev loss: {link}"
        assert ui.stdout.readline().startswith("Charts: http://127.0.0.1")
        assert ui.stdout.readline().startswith("Report: file://")
        shown = json.loads(ui.stdout.readline())
        assert shown["url"] == link
        wait_for(note)
        assert note.read_text().split() == [link]
        # It answers: the page, the study's runs, and a trial's artifact.
        assert "<title>MLflow</title>" in get(f"http://127.0.0.1:{port}/")
        run = next(run for run in find_runs(client, experiment_id) if "trial" in run.data.tags)
        config = get(
            f"http://127.0.0.1:{port}/get-artifact?run_uuid={run.info.run_id}&path=config.toml"
        )
        assert f"lr = {run.data.params['lr']}" in config
        # A server that runs already is only linked to; a password is not shown.
        remote = run_file(
            UI, "small", "--no-browser", "--tracking-uri", f"http://me:secret@127.0.0.1:{port}"
        )
        assert (remote.code, remote.out.splitlines()[0]) == (0, f"Trials by dev loss: {link}")
        assert note.read_text().split() == [link]
        ui.send_signal(signal.SIGINT)
        _, errors = ui.communicate(timeout=30)
    assert (ui.returncode, errors.splitlines()[-1]) == (0, "Stopped.")
    assert group_is_gone(shown["pid"])
    assert server.free_port(port) == port


@pytest.mark.server
@pytest.mark.skipif(
    shutil.which("ps") is None, reason="ps, which finds the server's process, is not installed"
)
def test_a_stop_while_it_starts_leaves_no_server(workdir: Path) -> None:
    with started("--port", str(a_free_port())) as ui:
        assert ui.stderr
        ui.stderr.readline()  # that it starts
        while not (servers := children_of(ui.pid)):
            assert ui.poll() is None
        ui.send_signal(signal.SIGTERM)
        _, errors = ui.communicate(timeout=30)
    assert (ui.returncode, errors.strip()) == (0, "Stopped.")
    assert all(group_is_gone(server) for server in servers)


def test_a_taken_port_is_refused_or_passed_over(workdir: Path, run_file: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        sentence = f"port {port} is taken on 127.0.0.1; give another --port, or none for the next free one."
        assert run_file(UI, "--port", port).refusal == sentence
    first = server.free_port(None)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind(("127.0.0.1", first))
        taken.listen()
        assert server.free_port(None) > first
    assert (
        run_file(UI, "--port", 70000).refusal
        == "--port must be between 1 and 65535, but got 70000."
    )


def test_without_a_database_it_says_to_run_a_study_and_makes_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_file: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = f"{tmp_path}/mlruns/mlflow.db: no such database; run a study first, for example studies/mlp.py."
    assert run_file(UI, "mlp").refusal == sentence
    assert not (tmp_path / "mlruns").exists()


def test_an_unknown_study_is_refused_with_those_that_exist(workdir: Path, run_file: Any) -> None:
    client = connect(None)
    assert run_file(UI, "mlp").refusal == "no study 'mlp' in this MLflow store; it holds none."
    for name in ("b", "a"):
        get_experiment(client, name)
    assert run_file(UI, "mlp").refusal == "no study 'mlp' in this MLflow store; it holds a, b."


def test_a_server_that_is_away_is_refused(workdir: Path, run_file: Any) -> None:
    address = f"http://127.0.0.1:{a_free_port()}"
    assert run_file(UI, "--tracking-uri", address).refusal.startswith(
        f"MLflow at {address} does not answer:"
    )


def test_a_server_that_does_not_start_names_its_log(workdir: Path) -> None:
    with pytest.raises(
        ValueError, match=r"ended while it started \(.+\); its log is mlruns/ui-\d+.log\."
    ):
        with server.serve("nonsense://store", a_free_port()):
            pass
