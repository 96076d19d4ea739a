"""Servers of the fault tests, which can be stopped and started again."""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.studies.conftest import find_initdb, postgres_server


class Database:
    """A PostgreSQL server of this test, which can be stopped and started again."""

    def __init__(self, folder: Path, initdb: Path, url: str) -> None:
        self.url = f"{url}/postgres"
        self._folder = folder
        self._pg_ctl = str(initdb.with_name("pg_ctl"))
        self._options = (folder / "data" / "postmaster.opts").read_text().split('"')[1::2]

    def stop(self) -> None:
        self._run("-m", "fast", "stop")

    def start(self) -> None:
        self._run("-o", " ".join(self._options), "-l", f"{self._folder}/log", "-w", "start")

    def _run(self, *arguments: str) -> None:
        user = "postgres" if os.getuid() == 0 else None
        command = [self._pg_ctl, "-D", f"{self._folder}/data", *arguments]
        subprocess.run(command, user=user, cwd=self._folder, check=True, stdout=subprocess.DEVNULL)


@pytest.fixture
def database() -> Iterator[Database]:
    initdb = find_initdb()
    with tempfile.TemporaryDirectory(prefix="postgres-") as folder:
        with postgres_server(Path(folder), initdb) as url:
            database = Database(Path(folder), initdb, url)
            yield database
            if not (Path(folder) / "data" / "postmaster.pid").exists():
                database.start()  # `postgres_server` stops it
