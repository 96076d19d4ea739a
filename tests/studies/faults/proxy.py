"""An HTTP proxy in front of an MLflow server that loses answers or answers in its place."""

from __future__ import annotations

import http.client
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

FORWARD = "forward"  # to the server, and its answer back
LOSE = "lose"  # the server obeys, but its answer is lost
HTML = "html"  # 200 with a page, and the server hears nothing
EMPTY = "empty"  # 200 with {}, and the server hears nothing
DROP = "drop"  # the connection is closed, and the server hears nothing
ERROR = "error"  # 500, and the server hears nothing
FALSE = {HTML: b"<html>Please sign in.</html>", EMPTY: b"{}"}

Choose = Callable[[str, str, int], str]  # method, path, how often it was asked -> what to do


@contextmanager
def proxy(port: int, choose: Choose) -> Iterator[str]:
    """Forward to a port of 127.0.0.1 while the block runs, with the faults that `choose` names."""
    asked: Counter[tuple[str, str]] = Counter()
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            path = self.path.split("?")[0].split("/artifacts/")[0]  # one path for all files
            with lock:
                asked[self.command, path] += 1
                fault = choose(self.command, path, asked[self.command, path])
            if fault in FALSE:
                self.answer(200, "text/html", FALSE[fault])
                return
            if fault == ERROR:
                self.answer(500, "text/plain", b"Internal Server Error")
                return
            if fault == DROP:
                self.connection.close()
                return
            server = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
            headers = {k: v for k, v in self.headers.items() if k.lower() != "host"}
            server.request(self.command, self.path, body, headers)
            found = server.getresponse()
            content = found.read()
            server.close()
            if fault == LOSE:
                self.connection.close()
                return
            self.answer(found.status, found.getheader("Content-Type") or "", content)

        def answer(self, status: int, kind: str, content: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            pass

        do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_any  # noqa: N815

    class Quiet(ThreadingHTTPServer):
        daemon_threads = True

        def handle_error(self, request: object, client_address: object) -> None:
            pass  # a launch that ended has closed its connection

    server = Quiet(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
