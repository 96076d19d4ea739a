"""A real MLflow server, and a proxy in front of it that answers some requests wrongly.

The fault tests and the chaos runs use both.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import free_port, wait_for

# How the proxy answers a request.
FORWARD = "forward"  # to the server, and its answer back
LOSE = "lose"  # the server obeys, but its answer is lost
LOSE_504 = "lose 504"  # the server obeys, but the proxy reports a timeout
HTML = "html"  # 200 with a page, and the server hears nothing
EMPTY = "empty"  # 200 with {}, and the server hears nothing
DROP = "drop"  # the connection is closed, and the server hears nothing
ERRORS = ("500", "502", "503", "504")  # this status, and the server hears nothing

PAGE = b"<html><body>Please log in to the network.</body></html>"
FALSE = {HTML: ("text/html", PAGE), EMPTY: ("application/json", b"{}")}
HOP_HEADERS = {"connection", "transfer-encoding", "content-length", "keep-alive", "date", "server"}


class MlflowServer:
    """An MLflow server on 127.0.0.1 that can be killed and started again.

    Args:
        folder: holds its database, its artifacts and its log.
        template: a migrated, empty database.
    """

    def __init__(self, folder: Path, template: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._process: subprocess.Popen[bytes] | None = None
        folder.mkdir()
        shutil.copy(template, folder / "mlflow.db")

    @property
    def is_running(self) -> bool:
        return self._process is not None

    def start(self) -> None:
        """Start the server, and wait until it answers."""
        command = [sys.executable, "-m", "mlflow", "server", "--workers", "1"]
        command += ["--host", "127.0.0.1", "--port", str(self.port)]
        command += ["--backend-store-uri", f"sqlite:///{self.folder}/mlflow.db"]
        command += ["--artifacts-destination", f"{self.folder}/artifacts"]
        environment = {
            **os.environ,
            "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",
            "MLFLOW_DISABLE_TELEMETRY": "true",
        }
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, env=environment, start_new_session=True
            )
        wait_for(self._answers, 120)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=2)
        try:
            connection.request("GET", "/health")
            return connection.getresponse().status == 200
        except OSError:
            return False
        finally:
            connection.close()

    def kill(self) -> None:
        """Kill the server and its children."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None


Choose = Callable[[str, str, int], str]  # method, path, how often it was asked -> what to do


def forward(method: str, path: str, times: int) -> str:
    """Answer every request correctly."""
    return FORWARD


class Proxy(ThreadingHTTPServer):
    """Passes each request to a port of 127.0.0.1, with the faults that `choose` names.

    `choose` may be replaced at any time. All files of the artifact store count as one path.
    """

    daemon_threads = True

    def __init__(self, port: int, choose: Choose = forward) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.port = port
        self.choose = choose
        self._asked: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def fault_of(self, method: str, path: str) -> str:
        """Return how to answer a request."""
        path = path.split("?")[0].split("/artifacts/")[0]
        with self._lock:
            self._asked[method, path] += 1
            return self.choose(method, path, self._asked[method, path])

    def close(self) -> None:
        self.shutdown()
        self.server_close()

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: killed launches close their connections."""


@contextmanager
def proxy(port: int, choose: Choose) -> Iterator[str]:
    """Run a proxy in front of a server while the block runs; yields its URI."""
    running = Proxy(port, choose)
    try:
        yield running.uri
    finally:
        running.close()


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault_of(self.command, self.path)
        if fault in FALSE:
            kind, content = FALSE[fault]
            self._reply(200, content, {"Content-Type": kind})
        elif fault in ERRORS:
            self._reply(int(fault), PAGE, {"Content-Type": "text/html"})
        elif fault == DROP:
            self._hang_up()
        else:
            self._pass_on(body, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _pass_on(self, body: bytes, fault: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.port, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_HEADERS | {"host"}}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            fault = LOSE  # the server is down: so is the address
        finally:
            connection.close()
        if fault == LOSE_504:
            self._reply(504, PAGE, {"Content-Type": "text/html"})
        elif fault == LOSE:
            self._hang_up()
        else:
            self._reply(answer.status, content, dict(answer.getheaders()))

    def _hang_up(self) -> None:
        self.connection.shutdown(socket.SHUT_RDWR)

    def _reply(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.send_response(status)
        for key, value in headers.items():
            if key.lower() not in HOP_HEADERS:
                self.send_header(key, value)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *args: object) -> None:
        """Print nothing."""
