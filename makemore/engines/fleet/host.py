"""Hosts of a fleet: a worker owns an engine, and a host calls it without waiting."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np

from makemore.config import Config
from makemore.engines.base import Engine, HostLost, Outcome, OutOfMemory
from makemore.errors import ModelTooLarge


class Worker:
    """Owns an engine, and numbers its slots as the fleet does. Call it from one thread only.

    Its answers travel cheaply between processes: outcomes, numbers and flat arrays.

    Args:
        make_engine: makes the engine; called in the worker's thread or process.
    """

    def __init__(self, make_engine: Callable[[], Engine]) -> None:
        self._engine = make_engine()
        self._slots: dict[int, int] = {}  # the fleet's slot -> the engine's slot
        self._refused: list[tuple[int, Outcome]] = []  # models that `admit` could not take

    def capacity(self) -> int:
        """Return the number of models that the engine can train at once."""
        return self._engine.capacity

    def admit(self, slot: int, config: Config) -> None:
        """Put a new model into a slot; `advance` reports a model that has no room."""
        if len(self._slots) >= self._engine.capacity:  # it shrank while this call was under way
            self._refused.append((slot, HostLost("the host has fewer slots than before")))
            return
        try:
            self._slots[slot] = self._engine.admit(config)
        except (ModelTooLarge, MemoryError) as error:
            self._refused.append((slot, OutOfMemory(str(error) or "out of memory")))

    def advance(self) -> tuple[list[tuple[int, Outcome]], int]:
        """Train as `Engine.advance`; return the outcomes and the engine's capacity."""
        if self._refused:
            outcomes, self._refused = self._refused, []
        else:
            fleet_slot = {engine: fleet for fleet, engine in self._slots.items()}
            outcomes = [(fleet_slot[slot], outcome) for slot, outcome in self._engine.advance()]
        return outcomes, self._engine.capacity

    def remove(self, slot: int) -> tuple[np.ndarray | None, float]:
        """Free a slot; return the weights of its best evaluation and its seconds of training.

        The weights are a flat float32 array, or None if the engine did not take the model.
        """
        if slot not in self._slots:
            return None, 0.0
        result = self._engine.remove(self._slots.pop(slot))
        return result.model.flat.detach().numpy(), result.seconds

    def discard(self, slot: int) -> None:
        """Free a slot without a result."""
        if slot in self._slots:
            self._engine.discard(self._slots.pop(slot))

    def close(self) -> None:
        """Close the engine."""
        self._engine.close()


class Host(Protocol):
    """Calls a worker, in the order of the calls, and does not wait for its answers.

    Attributes:
        name: for messages.
    """

    name: str

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the worker; returns its answer, or its exception, as a future."""

    def is_lost(self, error: BaseException) -> bool:
        """Return whether an exception of a call means that the worker is gone."""

    def close(self) -> None:
        """End the worker, which is lost, or whose engine was closed before."""


class ThreadHost:
    """A host whose worker is a thread of this process, for example for one of several GPUs."""

    def __init__(self, name: str, make_engine: Callable[[], Engine]) -> None:
        self.name = name
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=name)
        self._worker = self._thread.submit(Worker, make_engine).result()

    def call(self, method: str, *args: Any) -> Future[Any]:
        """Call a method of the worker in its thread."""
        return self._thread.submit(getattr(self._worker, method), *args)

    def is_lost(self, error: BaseException) -> bool:
        """Return False: a thread does not get lost."""
        return False

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(wait=False, cancel_futures=True)
