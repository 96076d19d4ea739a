"""The fleet: one engine whose slots are on several hosts, which may come and go."""

from __future__ import annotations

import itertools
import logging
import queue
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import torch

from makemore.config import Config
from makemore.engines.base import (
    RETURN_AFTER,
    EvalPoint,
    HostLost,
    Outcome,
    TrainResult,
)
from makemore.engines.fleet.host import Host
from makemore.errors import one_line
from makemore.model import MLP, n_params

logger = logging.getLogger(__name__)
START_WAIT = 30.0  # seconds; hosts that are there at the start have so long to answer
WARN_EVERY = 60.0  # seconds
CLOSE_WAIT = 2 * RETURN_AFTER


@dataclass(eq=False)
class _Member:
    """What the fleet knows about a host.

    Attributes:
        capacity: number of models that it trains at once; 0 until it has answered.
        slots: the fleet's slots on this host.
        advancing: its unanswered call of `advance` or `capacity`.
    """

    host: Host
    capacity: int = 0
    slots: dict[int, _Slot] = field(default_factory=dict)
    advancing: Future[Any] | None = None

    @property
    def is_training(self) -> bool:
        return any(not slot.done for slot in self.slots.values())

    @property
    def load(self) -> float:
        """Share of the slots that are taken."""
        return len(self.slots) / self.capacity if self.capacity else 1.0


@dataclass(eq=False)
class _Slot:
    """A model of the fleet.

    Attributes:
        member: its host, or None if the host is lost.
        done: it does not train further.
    """

    config: Config
    member: _Member | None
    history: list[EvalPoint] = field(default_factory=list)
    done: bool = False


class Fleet:
    """An engine whose capacity is the sum of those of its hosts.

    Each host trains in its own thread or process, while the fleet waits for the first outcomes of
    any of them. A lost host is not an error: each of its models gets the outcome `HostLost`.

    Args:
        find_hosts: returns the hosts that joined since its last call; `advance` calls it, at most
            once a second.
        vocab_size: number of different tokens of the corpus.
        on_close: called after all hosts are closed.
    """

    def __init__(
        self,
        find_hosts: Callable[[], Sequence[Host]],
        vocab_size: int,
        on_close: Callable[[], None] = lambda: None,
    ) -> None:
        self._find_hosts = find_hosts
        self._vocab_size = vocab_size
        self._on_close = on_close
        self._members: list[_Member] = []
        self._slots: dict[int, _Slot] = {}
        self._numbers = itertools.count()  # never used again: an answer may come after a removal
        self._answers: queue.SimpleQueue[tuple[_Member, Future[Any]]] = queue.SimpleQueue()
        self._outcomes: list[tuple[int, Outcome]] = []  # not returned yet
        self._looked = -RETURN_AFTER  # time.monotonic() of the last search for hosts
        self._last_warning: float | None = None
        self._closed = False
        self._join()
        wait([member.advancing for member in self._members if member.advancing], START_WAIT)
        self._take_all()

    @classmethod
    def of(cls, hosts: Sequence[Host], vocab_size: int) -> Fleet:
        """Return a fleet of these hosts, that no other host joins."""
        batches: Iterator[Sequence[Host]] = iter([hosts])
        return cls(lambda: next(batches, ()), vocab_size)

    @property
    def capacity(self) -> int:
        """Number of models that can be trained at once, on all hosts."""
        return sum(member.capacity for member in self._members)

    def admit(self, config: Config) -> int:
        """Put a new model onto the host with the largest share of free slots.

        It does not wait for the host. A model that is too large gets the outcome `OutOfMemory`.

        Raises:
            RuntimeError: no slot is free, or the fleet is closed.
        """
        self._check_open()
        free = [member for member in self._members if len(member.slots) < member.capacity]
        if not free:
            raise RuntimeError(f"all {self.capacity} slots are taken; remove a model first.")
        member = min(free, key=lambda member: member.load)
        number = next(self._numbers)
        self._slots[number] = member.slots[number] = _Slot(config, member)
        self._call(member, "admit", number, config)
        return number

    def advance(self) -> list[tuple[int, Outcome]]:
        """Wait for the next outcomes of any host, or for RETURN_AFTER, as `Engine.advance`.

        Raises:
            Exception: a bug in a worker.
        """
        self._check_open()
        self._join()
        until = time.monotonic() + RETURN_AFTER
        while not self._outcomes:
            for member in self._members:
                if member.advancing is None and member.is_training:
                    member.advancing = self._call(member, "advance")
            idle = not any(member.advancing for member in self._members)
            if idle and self.capacity:
                break
            try:
                answer = self._answers.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                break
            self._take(*answer)
            self._take_all()
        outcomes, self._outcomes = self._outcomes, []
        return outcomes

    def remove(self, slot: int) -> TrainResult:
        """Free a slot at any time and return the result of its model so far.

        Waits for a busy host, which answers after about a second at most.

        Raises:
            KeyError: the slot is empty.
            HostLost: the weights are lost with their host; the slot is free all the same.
        """
        held = self._release(slot)
        if held.member is None:
            raise HostLost("the host of this model was lost.")
        try:
            weights, seconds = held.member.host.call("remove", slot).result()
        except Exception as error:
            if not held.member.host.is_lost(error):
                raise
            raise self._lose(held.member, error) from None
        model = MLP(held.config, self._vocab_size)
        if weights is not None:
            with torch.no_grad():
                model.flat.copy_(torch.tensor(weights))
        size = n_params(held.config, self._vocab_size)
        return TrainResult(model, tuple(held.history), size, seconds)

    def discard(self, slot: int) -> None:
        """Free a slot at any time, without a result and without waiting for its host."""
        held = self._release(slot)
        if held.member is not None:
            self._call(held.member, "discard", slot)

    def close(self) -> None:
        """Close all hosts, within about a second."""
        if self._closed:
            return
        self._closed = True
        # What a lost host answers to this does not matter any more.
        with suppress(Exception):
            wait([member.host.call("close") for member in self._members], CLOSE_WAIT)
        for member in self._members:
            with suppress(Exception):
                member.host.close()
        self._slots.clear()
        self._on_close()

    def _check_open(self) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed; make a new one.")

    # ---- hosts

    def _join(self) -> None:
        """Take in new hosts, and ask them for their capacity."""
        if time.monotonic() - self._looked < RETURN_AFTER:
            return
        self._looked = time.monotonic()
        self._warn_without_hosts()
        for host in self._find_hosts():
            member = _Member(host)
            self._members.append(member)
            member.advancing = self._call(member, "capacity")

    def _warn_without_hosts(self) -> None:
        """Say once a minute that no host can train."""
        now = time.monotonic()
        if self.capacity or self._last_warning is None:
            self._last_warning = now  # or the start
        elif now - self._last_warning >= WARN_EVERY:
            self._last_warning = now
            logger.warning("No host can train now. Waiting for one with free cores or a free GPU.")

    def _call(self, member: _Member, method: str, *args: Any) -> Future[Any]:
        future = member.host.call(method, *args)
        future.add_done_callback(lambda done: self._answers.put((member, done)))
        return future

    def _take_all(self) -> None:
        while not self._answers.empty():
            self._take(*self._answers.get())

    def _take(self, member: _Member, answer: Future[Any]) -> None:
        """Take in the answer of a host to any call but `remove`."""
        if answer is member.advancing:
            member.advancing = None
        error = answer.exception()
        if error is not None:
            if not member.host.is_lost(error):
                raise error
            self._lose(member, error)
        elif isinstance(answer.result(), int):
            member.capacity = answer.result()
        elif answer.result() is not None:
            outcomes, member.capacity = answer.result()
            for number, outcome in outcomes:
                self._record(member, number, outcome)

    def _record(self, member: _Member, number: int, outcome: Outcome) -> None:
        slot = member.slots.get(number)
        if slot is None:
            return  # discarded meanwhile
        if isinstance(outcome, EvalPoint):
            slot.history.append(outcome)
            slot.done = outcome.step >= slot.config.max_steps
        else:
            slot.done = True
        self._outcomes.append((number, outcome))

    def _lose(self, member: _Member, error: BaseException) -> HostLost:
        """Report the models of a host as lost; returns the outcome that they get."""
        lost = HostLost(f"host {member.host.name} was lost ({one_line(error)})")
        if member not in self._members:
            return lost  # an earlier answer said so
        logger.warning("%s; models that start again: %d", lost, len(member.slots))
        self._members.remove(member)
        member.host.close()
        self._outcomes += [(n, lost) for n, slot in member.slots.items() if not slot.done]
        for slot in member.slots.values():
            slot.member = None
            slot.done = True
        return lost

    def _release(self, slot: int) -> _Slot:
        held = self._slots.pop(slot)
        if held.member is not None:
            del held.member.slots[slot]
        self._outcomes = [(number, outcome) for number, outcome in self._outcomes if number != slot]
        return held
