"""A host whose worker is a process, so that a test can kill it."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from makemore.engines import Engine
from makemore.engines.fleet.host import Worker

_worker: Worker  # in the child process


def _start(make_engine: Callable[[], Engine]) -> int:
    global _worker
    _worker = Worker(make_engine)
    return os.getpid()


def _call(method: str, *args: Any) -> Any:
    return getattr(_worker, method)(*args)


class ProcessHost:
    """Calls a worker in its own process.

    Attributes:
        pid: the process.
    """

    def __init__(self, name: str, make_engine: Callable[[], Engine]) -> None:
        self.name = name
        context = multiprocessing.get_context("spawn")
        self._process = ProcessPoolExecutor(1, mp_context=context)
        self.pid = self._process.submit(_start, make_engine).result()

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the worker."""
        try:
            return self._process.submit(_call, method, *args)
        except BrokenProcessPool as error:
            future: Future[Any] = Future()
            future.set_exception(error)
            return future

    def is_lost(self, error: BaseException) -> bool:
        """Return whether the process was killed."""
        return isinstance(error, BrokenProcessPool)

    def kill(self) -> None:
        """End the process as a lost machine would."""
        os.kill(self.pid, signal.SIGKILL)

    def close(self) -> None:
        """End the process."""
        self._process.shutdown(wait=False, cancel_futures=True)
