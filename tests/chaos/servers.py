"""A real MLflow server, and a proxy in front of it that answers some requests wrongly."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from tests.conftest import free_port, wait_for

HTML = b"<html><body>Please log in to the network.</body></html>"
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


@dataclass
class WrongAnswer:
    """What the proxy does to some requests.

    Attributes:
        kind: "5xx", "lost reply" or "false 200".
        where: part of the paths of these requests.
        skip: how many of them are answered correctly before.
        count: how many are answered wrongly.
        done: how many were answered wrongly so far.
    """

    kind: str
    where: str
    skip: int
    count: int
    done: int = 0

    @property
    def details(self) -> list[str]:
        """The wrong answers of this kind, in turn."""
        return {
            "5xx": ["500", "502", "503", "504"],
            "lost reply": ["lost", "lost 504"],
            "false 200": ["html", "{}"],
        }[self.kind]


class Proxy(ThreadingHTTPServer):
    """Passes each request to the MLflow server, except those that a WrongAnswer names."""

    daemon_threads = True

    def __init__(self, port: int) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.server = port
        self._wrong: tuple[WrongAnswer, ...] = ()
        self._lock = threading.Lock()
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def uri(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def arm(self, *wrong: WrongAnswer) -> None:
        """Answer wrongly from now on as these say; without arguments, always correctly."""
        with self._lock:
            self._wrong = wrong

    def fault_of(self, path: str) -> str:
        """Return how to answer a request: "", a status, "lost", "lost 504", "html" or "{}"."""
        with self._lock:
            for wrong in self._wrong:
                if wrong.done < wrong.count and wrong.where in path:
                    if not wrong.skip:
                        wrong.done += 1
                        return wrong.details[wrong.done % len(wrong.details)]
                    wrong.skip -= 1
        return ""

    def handle_error(self, request: object, client_address: object) -> None:
        """Print nothing: killed launches close their connections."""


class _Handler(BaseHTTPRequestHandler):
    server: Proxy

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        fault = self.server.fault_of(self.path)
        if fault in ("html", "{}"):
            kind = "text/html" if fault == "html" else "application/json"
            self._reply(200, HTML if fault == "html" else b"{}", {"Content-Type": kind})
        elif fault.isdigit():
            self._reply(int(fault), HTML, {"Content-Type": "text/html"})
        else:
            self._pass_on(body, fault)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _answer

    def _pass_on(self, body: bytes, fault: str) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.server.server, timeout=60)
        headers = {k: v for k, v in self.headers.items() if k.lower() not in HOP_HEADERS | {"host"}}
        try:
            connection.request(self.command, self.path, body or None, headers)
            answer = connection.getresponse()
            content = answer.read()
        except OSError:
            fault = "lost"  # the server is down: so is the address
        finally:
            connection.close()
        if fault == "lost 504":
            self._reply(504, HTML, {"Content-Type": "text/html"})
        elif fault == "lost":
            self.connection.shutdown(socket.SHUT_RDWR)
        else:
            self._reply(answer.status, content, dict(answer.getheaders()))

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
