"""The script that opens the MLflow UI: a real server, the chosen study, and refused input."""

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
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.harness.tracking.connection.find import find_runs, get_experiment
from studies.harness.tracking.views import experiment_links, experiment_tags, view_link
from studies.ui import choose_experiment
from tests.conftest import ROOT

UI = "studies/ui.py"


def a_free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def started(*flags: str, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """Start the script as a process, and stop it at the end of the block if it still runs."""
    displays = ("DISPLAY", "WAYLAND_DISPLAY")
    clean = {name: value for name, value in os.environ.items() if name not in displays}
    with subprocess.Popen(
        [sys.executable, str(ROOT / UI), *flags],
        env={**clean, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.terminate()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=10) as answer:
        return str(answer.read().decode())


def children_of(pid: int) -> list[int]:
    """Return the processes whose parent is `pid`."""
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
    """Wait up to ten seconds until another process has written a file."""
    deadline = time.monotonic() + 10
    while not (path.exists() and path.read_text().endswith("\n")) and time.monotonic() < deadline:
        time.sleep(0.05)


def browser_that_notes(folder: Path) -> tuple[dict[str, str], Path]:
    """Return an environment whose browser writes each opened address to a file, and that file."""
    program = folder / "browser.sh"
    note = folder / "opened.txt"
    program.write_text(f'#!/bin/sh\necho "$1" >> {note}\n')
    program.chmod(0o755)
    return {"BROWSER": f"{program} %s", "DISPLAY": ":77"}, note


def add_study(name: str, started: int) -> str:
    """Create an experiment with a study's views and one run, and return its id."""
    client = connect(None)
    experiment_id = get_experiment(client, name)
    for key, value in experiment_tags(["lr"], started).items():
        client.set_experiment_tag(experiment_id, key, value)
    client.create_run(experiment_id, start_time=started)
    return experiment_id


@pytest.mark.server
def test_ui_serves_the_study_and_leaves_nothing_behind(
    launch: Callable[..., int], run_file: Any, workdir: Path
) -> None:
    launch(trials=2)
    port = a_free_port()
    base = f"http://127.0.0.1:{port}"
    client = connect(None)
    experiment_id = get_experiment(client, "small")
    link = view_link(base, experiment_id)
    browser, note = browser_that_notes(workdir)
    with started("small", "--port", str(port), "--json", **browser) as ui:
        assert ui.stdout and ui.stderr
        assert ui.stdout.readline().strip() == f"Trials by dev loss: {link}"
        assert ui.stdout.readline().startswith(f"Charts: {base}")
        assert ui.stdout.readline().startswith("Report: file://")
        shown = json.loads(ui.stdout.readline())
        assert shown["url"] == link
        wait_for(note)
        assert note.read_text().split() == [link]
        # It answers: the page, the study's runs, and a trial's artifact.
        assert "<title>MLflow</title>" in get(f"{base}/")
        run = next(run for run in find_runs(client, experiment_id) if "trial" in run.data.tags)
        config = get(f"{base}/get-artifact?run_uuid={run.info.run_id}&path=config.toml")
        assert f"lr = {run.data.params['lr']}" in config
        # A server that runs already is only linked to, and its password is not shown.
        uri = f"http://me:secret@127.0.0.1:{port}"
        for name in (["small"], []):
            remote = run_file(UI, *name, "--no-browser", "--tracking-uri", uri)
            assert (remote.code, remote.err) == (0, "")
            assert remote.out.splitlines()[0] == f"Trials by dev loss: {link}"
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
def test_stop_during_start_leaves_no_server(workdir: Path) -> None:
    add_study("small", 1000)
    with started("--port", str(a_free_port())) as ui:
        assert ui.stderr
        assert ui.stderr.readline().startswith("Starting the MLflow UI")
        while not (servers := children_of(ui.pid)):
            assert ui.poll() is None
        ui.send_signal(signal.SIGTERM)
        _, errors = ui.communicate(timeout=30)
    assert (ui.returncode, errors.strip()) == (0, "Stopped.")
    assert all(group_is_gone(server) for server in servers)


def test_newest_study_is_opened_and_others_named(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    newest = add_study("wide", 3000)
    add_study("deep", 2000)
    client = connect(None)
    # An experiment that is not a study, with a newer run.
    client.create_run(get_experiment(client, "retrained"), start_time=4000)

    chosen = choose_experiment(default_tracking_uri(), None)

    assert chosen.experiment_id == newest
    # The first trials of the link are ranked: it names the saved view.
    links = experiment_links("http://host", chosen)
    assert links["Trials by dev loss"] == view_link("http://host", newest)
    assert capsys.readouterr().err.splitlines() == [
        "Opening wide, the newest of: deep, retrained, wide.",
        "To open another one, give its name.",
    ]


def test_single_study_is_opened_without_a_word(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    add_study("mlp", 1000)

    assert choose_experiment(default_tracking_uri(), None).name == "mlp"
    assert capsys.readouterr().err == ""


def test_store_without_runs_says_to_run_a_study(workdir: Path, run_file: Any) -> None:
    assert run_file(UI).refusal == (
        f"no study in MLflow at {default_tracking_uri()} yet; run a study first, for example "
        "studies/mlp.py."
    )


def test_missing_database_says_to_run_a_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, run_file: Any
) -> None:
    monkeypatch.chdir(tmp_path)
    sentence = (
        f"{tmp_path}/mlruns/mlflow.db: no such database; run a study first, for example "
        "studies/mlp.py."
    )
    assert run_file(UI, "mlp").refusal == sentence
    assert run_file(UI).refusal == sentence
    assert not (tmp_path / "mlruns").exists()


def test_unknown_study_is_refused_with_those_that_exist(workdir: Path, run_file: Any) -> None:
    client = connect(None)
    assert run_file(UI, "mlp").refusal == "no study 'mlp' in this MLflow store; it holds none."
    for name in ("b", "a"):
        get_experiment(client, name)
    assert run_file(UI, "mlp").refusal == "no study 'mlp' in this MLflow store; it holds a, b."


def test_taken_port_is_refused(workdir: Path, run_file: Any) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert run_file(UI, "--port", port).refusal == (
            f"port {port} is taken on 127.0.0.1; give another --port, or none for the next free "
            "one."
        )


def test_absent_server_is_refused(workdir: Path, run_file: Any) -> None:
    address = f"http://127.0.0.1:{a_free_port()}"
    sentence = run_file(UI, "--tracking-uri", address).refusal
    assert sentence.startswith(f"MLflow at {address} does not answer:")


@pytest.mark.parametrize("script", [UI, "studies/doctor.py"])
def test_help_loads_no_heavy_library(script: str) -> None:
    program = """
import runpy, sys
sys.argv = [sys.argv[1], "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    heavy = {"torch", "numba", "mlflow", "optuna", "pandas", "matplotlib", "sqlalchemy"}
    print(sorted(heavy & set(sys.modules)))
"""
    command = [sys.executable, "-c", program, script]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    assert "Usage:" in done.stdout and done.stdout.splitlines()[-1] == "[]"
