"""Runs the MLflow UI: a server on a tracking store, on a free port, stopped with its children."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
import webbrowser
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NoReturn
from urllib.parse import urlsplit

from makemore.errors import UserError
from studies.harness.store.paths import MLRUNS

HOST = "127.0.0.1"
FIRST_PORT = 5000
LAST_PORT = 5099
START_WITHIN = 120.0  # seconds; 4 to 5 are usual
STOP_WITHIN = 5.0  # seconds between the request to stop and the kill


def server_address(uri: str) -> str | None:
    """Return the address of the server that a tracking URI names, or None if it names a database.

    The address has no user and no password.
    """
    if not uri.startswith(("http://", "https://")):
        return None
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def free_port(port: int | None) -> int:
    """Return the port if it is free; without a port, the first free one from FIRST_PORT on.

    Raises:
        UserError: the port is taken or out of range.
    """
    if port is None:
        for candidate in range(FIRST_PORT, LAST_PORT + 1):
            if _is_free(candidate):
                return candidate
        raise UserError(
            f"ports {FIRST_PORT} to {LAST_PORT} are taken on {HOST}; give a free --port."
        )
    if not 1 <= port <= 65535:
        raise UserError(f"--port must be between 1 and 65535, but got {port}.")
    if not _is_free(port):
        raise UserError(
            f"port {port} is taken on {HOST}; give another --port, or none for the next free one."
        )
    return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # Some systems let a second program bind a port on which another listens on all addresses.
        if probe.connect_ex((HOST, port)) == 0:
            return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


@contextmanager
def serve(store: str, port: int) -> Iterator[subprocess.Popen[Any]]:
    """Run an MLflow server while the block runs, then stop it and its children.

    Args:
        store: tracking URI of a database.
        port: a free port.

    Yields:
        The server's process; the server answers.

    Raises:
        UserError: the server ended or did not answer in time; names its log.
    """
    log = MLRUNS / f"ui-{port}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    flags = ["--host", HOST, "--port", str(port), "--workers", "1"]
    environment = {
        **os.environ,
        "MLFLOW_BACKEND_STORE_URI": store,  # every user of the machine could read a flag
        "MLFLOW_ARTIFACTS_DESTINATION": (MLRUNS / "artifacts").absolute().as_uri(),
        # 2 processes and 0.5 GB instead of 15 processes and 3 GB.
        "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    with log.open("wb") as output, ThreadPoolExecutor(1) as thread:
        # In a thread: a signal that arrives while the process starts would leave it without owner.
        starting = thread.submit(
            subprocess.Popen,
            [sys.executable, "-m", "mlflow", "server", *flags],
            env=environment,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
            start_new_session=True,  # Ctrl-C reaches only this process, which stops the group
        )
        try:
            server = starting.result()
        except KeyboardInterrupt:
            _stop(starting.result())
            raise
    try:
        _wait(server, port, log)
        yield server
    finally:
        _stop(server)


def _wait(server: subprocess.Popen[Any], port: int, log: Path) -> None:
    """Wait until the server answers."""
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
    """Stop the server and its children, which are one process group: first ask, then kill."""
    for signum in (signal.SIGTERM, signal.SIGKILL):
        deadline = time.monotonic() + STOP_WITHIN
        while time.monotonic() < deadline:
            try:
                os.killpg(server.pid, signum)
            except ProcessLookupError:
                return
            server.poll()  # without this, an ended process stays in its group
            time.sleep(0.1)


@contextmanager
def stop_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt in the block on SIGTERM and SIGHUP too, so that no server is left."""

    def stop(number: int, frame: object) -> NoReturn:
        for signum in before:
            signal.signal(signum, signal.SIG_IGN)  # a second Ctrl-C must not interrupt the stop
        raise KeyboardInterrupt

    signums = (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    before = {signum: signal.signal(signum, stop) for signum in signums}
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


def open_browser(link: str) -> None:
    """Open a link if there is a display; without one, webbrowser would fill the terminal."""
    if sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ:
        webbrowser.open(link)
