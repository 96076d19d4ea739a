"""What all schedules share: an empty MLflow database, an MLflow server, and small disks."""

from __future__ import annotations

import subprocess
from pathlib import Path

from studies.harness.tracking.connection.connect import connect
from tests.chaos.stores import Study
from tests.servers import MlflowServer, Proxy


class World:
    """What all schedules share: an empty database, a server, and studies without faults."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.template = folder / "template.db"
        connect(f"sqlite:///{self.template}")
        self._server: MlflowServer | None = None
        self._proxy: Proxy | None = None
        self.references: dict[int, Study] = {}  # by their steps; sessions make them

    def server(self) -> tuple[MlflowServer, Proxy]:
        """Return the server, which runs, and the proxy in front of it."""
        if self._server is None or self._proxy is None:
            self._server = MlflowServer(self.folder / "server", self.template)
            self._proxy = Proxy(self._server.port)
        if not self._server.is_running:
            self._server.start()
        return self._server, self._proxy

    def close(self) -> None:
        if self._proxy is not None:
            self._proxy.close()
        if self._server is not None:
            self._server.kill()


def mount(folder: Path) -> bool:
    """Put mlruns/ on its own small disk; returns whether this user can."""
    command = ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", str(folder / "mlruns")]
    return subprocess.run(command, capture_output=True).returncode == 0
