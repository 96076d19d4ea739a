"""Ports, signals and failures of the MLflow server; tests/studies/test_ui.py serves for real."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import pytest

from makemore.errors import UserError
from studies.harness.tracking import server


def listening(port: int = 0) -> socket.socket:
    """Return a socket that listens on a port of 127.0.0.1; 0 means any free port."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen()
    return listener


def test_taken_port_is_refused() -> None:
    with listening() as taken:
        port = taken.getsockname()[1]
        with pytest.raises(UserError, match=f"port {port} is taken on 127.0.0.1; give another"):
            server.free_port(port)

    assert server.free_port(port) == port


def test_next_port_is_taken_without_a_given_one() -> None:
    first = server.free_port(None)
    with listening(first):
        assert server.free_port(None) > first


@pytest.mark.parametrize("port", [0, -1, 70000])
def test_port_out_of_range_is_refused(port: int) -> None:
    with pytest.raises(UserError, match=f"--port must be between 1 and 65535, but got {port}."):
        server.free_port(port)


@pytest.mark.parametrize(
    ("uri", "address"),
    [
        ("sqlite:///mlruns/mlflow.db", None),
        ("http://127.0.0.1:5000", "http://127.0.0.1:5000"),
        ("https://me:secret@host/mlflow", "https://host/mlflow"),
    ],
)
def test_address_of_a_server_has_no_password(uri: str, address: str | None) -> None:
    assert server.server_address(uri) == address


def test_failed_start_names_the_log(workdir: Path) -> None:
    sentence = r"ended while it started \(.+\); its log is mlruns/ui-\d+.log\."
    with pytest.raises(UserError, match=sentence):
        with server.serve("nonsense://store", server.free_port(None)):
            pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_signals_interrupt_the_block_and_are_restored(number: signal.Signals) -> None:
    before = signal.getsignal(number)

    with pytest.raises(KeyboardInterrupt):
        with server.stop_signals():
            os.kill(os.getpid(), number)
            signal.pause()

    assert signal.getsignal(number) == before
