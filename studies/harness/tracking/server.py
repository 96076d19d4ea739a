"""The MLflow UI: a server of this process's own on a tracking store, and links into it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from makemore.errors import UserError
from studies.harness.store.paths import MLRUNS

HOST = "127.0.0.1"
FIRST_PORT = 5000
START_WITHIN = 120.0  # seconds; 4 to 5 are usual
STOP_WITHIN = 5.0  # seconds between asking the server to stop and killing it


def runs_link(base: str, experiment_id: str | None) -> str:
    """The address of an experiment's runs, or of all experiments. A fresh browser would open another page of it."""
    base = base.rstrip("/")
    return f"{base}/#/experiments" + (
        f"/{experiment_id}/runs?workflowType=machine_learning" if experiment_id else ""
    )


def free_port(port: int | None) -> int:
    """The port, or without one the first free one from FIRST_PORT.

    Raises:
        UserError: the port is taken, or out of range.
    """
    if port is not None:
        if not 1 <= port <= 65535:
            raise UserError(f"--port must be between 1 and 65535, but got {port}.")
        if not _is_free(port):
            raise UserError(
                f"port {port} is taken on {HOST}; give another --port, or none for the next free one."
            )
        return port
    for candidate in range(FIRST_PORT, FIRST_PORT + 100):
        if _is_free(candidate):
            return candidate
    raise UserError(
        f"ports {FIRST_PORT} to {FIRST_PORT + 99} are taken on {HOST}; give a free --port."
    )


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        if probe.connect_ex((HOST, port)) == 0:
            return False  # someone listens on all addresses, where some systems would let us bind as well
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def serve(store: str, port: int) -> Iterator[subprocess.Popen[Any]]:
    """Run an MLflow server on a tracking store while the block runs, and stop it and its children after.

    Args:
        store: tracking URI of a database.

    Yields:
        The server's process; the server answers.

    Raises:
        UserError: the server ended, or did not answer in time; names its log.
    """
    log = MLRUNS / f"ui-{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "server",
        "--host",
        HOST,
        "--port",
        str(port),
        "--workers",
        "1",
    ]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # not as a flag, which every user of the machine could read
        "MLFLOW_ARTIFACTS_DESTINATION": (MLRUNS / "artifacts").absolute().as_uri(),
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # 2 processes and 0.5 GB in place of 15 and 3 GB
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    # In a session of its own, so that Ctrl-C reaches only this process, which then stops the whole group.
    with log.open("wb") as output:
        server = subprocess.Popen(
            command,
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
    try:
        _wait(server, port, log)
        yield server
    finally:
        _stop(server)


def _wait(server: subprocess.Popen[Any], port: int, log: Path) -> None:
    deadline = time.monotonic() + START_WITHIN
    while time.monotonic() < deadline:
        if server.poll() is not None:
            lines = log.read_text(errors="replace").strip().splitlines()
            last = lines[-1] if lines else "no output"
            raise UserError(f"the MLflow server ended while it started ({last}); its log is {log}.")
        try:
            with urllib.request.urlopen(f"http://{HOST}:{port}/health", timeout=2) as answer:
                if answer.status == 200:
                    return
        except OSError:
            time.sleep(0.1)
    raise UserError(
        f"the MLflow server did not answer within {START_WITHIN:.0f} s; its log is {log}."
    )


def _stop(server: subprocess.Popen[Any]) -> None:
    """Stop the server and its children, which are one process group: politely, and after a while by force."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_WITHIN
        while time.monotonic() < deadline:
            try:
                os.killpg(server.pid, signum)
            except ProcessLookupError:
                return
            server.poll()  # a process that has ended stays in its group until it is asked
            time.sleep(0.1)
