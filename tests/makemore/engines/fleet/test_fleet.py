"""The fleet: hosts that join, are lost, refuse a model or have a bug. The rest is the contract."""

from __future__ import annotations

import pickle
import time
from collections.abc import Callable, Iterator
from functools import partial

import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, EvalPoint, HostLost, Outcome, OutOfMemory
from makemore.engines.base import RETURN_AFTER
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.fleet.fleet import Fleet
from makemore.engines.fleet.host import Host, ThreadHost
from makemore.errors import ModelTooLarge
from tests.makemore.engines.fleet.process_host import ProcessHost
from tests.makemore.engines.table import outcomes_of, two_hosts
from tests.makemore.engines.test_contract import BASE, ENDLESS, TABLE

Start = Callable[[Callable[[], list[Host]]], Fleet]


@pytest.fixture
def start(small_corpus: Corpus) -> Iterator[Start]:
    """Return a function that makes a fleet from `find_hosts`; it is closed after the test."""
    fleets: list[Fleet] = []

    def start(find_hosts: Callable[[], list[Host]]) -> Fleet:
        fleets.append(Fleet(find_hosts, len(small_corpus.vocab)))
        return fleets[-1]

    yield start
    for fleet in fleets:
        fleet.close()


class Joining:
    """A `find_hosts` to which a test adds hosts."""

    def __init__(self, *hosts: Host) -> None:
        self.new = list(hosts)

    def __call__(self) -> list[Host]:
        found, self.new = self.new, []
        return found


def test_fleet_equals_one_engine_bit_for_bit(small_corpus: Corpus) -> None:
    configs = [BASE.replace(**{"max_steps": 30, "eval_interval": 10, **c}) for c in TABLE]
    results = []
    for engine in (CpuEngine(small_corpus, 8), two_hosts(small_corpus, 8)):
        slots = {engine.admit(config): config for config in configs}
        outcomes_of(engine, slots)
        results.append([engine.remove(slot) for slot in slots])
        engine.close()

    for one, other in zip(*results, strict=True):
        assert one.history == other.history
        assert torch.equal(one.model.flat, other.model.flat)


def test_models_are_spread_over_the_hosts(small_corpus: Corpus) -> None:
    engines = [CpuEngine(small_corpus, 2), CpuEngine(small_corpus, 2)]
    fleet = Fleet.of(
        [ThreadHost(str(n), partial(engines.__getitem__, n)) for n in (0, 1)],
        len(small_corpus.vocab),
    )
    for _ in range(2):
        fleet.admit(ENDLESS)
    fleet.advance()

    assert [len(engine._slots) for engine in engines] == [1, 1]
    fleet.close()


def test_lost_host_loses_only_its_models(start: Start, small_corpus: Corpus) -> None:
    doomed = ProcessHost("doomed", partial(CpuEngine, small_corpus, 2))
    hosts = Joining(doomed, ThreadHost("other", partial(CpuEngine, small_corpus, 1)))
    fleet = start(hosts)
    slots = {fleet.admit(config): config for config in (ENDLESS, BASE, ENDLESS)}
    on_doomed = [n for n, slot in fleet._slots.items() if slot.member is fleet._members[0]]
    assert fleet.capacity == 3 and len(on_doomed) == 2
    doomed.kill()

    lost: dict[int, HostLost] = {}
    while len(lost) < 2:
        lost |= {n: o for n, o in fleet.advance() if isinstance(o, HostLost)}

    assert sorted(lost) == sorted(on_doomed)
    assert "host doomed was lost" in str(lost[on_doomed[0]])
    assert fleet.capacity == 1
    for slot in on_doomed:
        with pytest.raises(HostLost):
            fleet.remove(slot)
    # A new host takes the models.
    hosts.new.append(ThreadHost("new", partial(CpuEngine, small_corpus, 2)))
    while fleet.capacity < 3:
        assert not any(isinstance(outcome, HostLost) for _, outcome in fleet.advance())
    again = fleet.admit(slots[on_doomed[1]].replace(max_steps=4))
    while dict(fleet.advance()).get(again) is None:
        pass
    assert [point.step for point in fleet.remove(again).history] == [4]


def test_removal_from_a_lost_host(start: Start, small_corpus: Corpus) -> None:
    host = ProcessHost("doomed", partial(CpuEngine, small_corpus, 2))
    fleet = start(Joining(host))
    slot, other = fleet.admit(BASE), fleet.admit(ENDLESS)
    while not fleet.advance():
        pass
    host.kill()

    with pytest.raises(HostLost, match="host doomed was lost"):
        fleet.remove(slot)
    outcomes = fleet.advance()
    assert [number for number, _ in outcomes] == [other]
    assert isinstance(outcomes[0][1], HostLost)


def test_fleet_without_hosts_waits_for_one(start: Start, small_corpus: Corpus) -> None:
    hosts = Joining()
    fleet = start(hosts)
    begun = time.monotonic()

    assert fleet.capacity == 0 and fleet.advance() == []
    assert time.monotonic() - begun >= RETURN_AFTER / 2  # the coordinator's loop must not spin
    with pytest.raises(RuntimeError, match="all 0 slots are taken"):
        fleet.admit(BASE)

    hosts.new.append(ThreadHost("late", partial(CpuEngine, small_corpus, 1)))
    while not fleet.capacity:
        assert fleet.advance() == []
    slot = fleet.admit(BASE)
    assert len(outcomes_of(fleet, {slot: BASE})[slot]) == 3


class Slow(CpuEngine):
    """An engine that answers later than a fleet waits."""

    def advance(self) -> list[tuple[int, Outcome]]:
        time.sleep(1.5 * RETURN_AFTER)
        return super().advance()


def test_discarding_on_a_busy_host_does_not_wait(start: Start, small_corpus: Corpus) -> None:
    fleet = start(Joining(ThreadHost("busy", partial(Slow, small_corpus, 2))))
    slots = [fleet.admit(BASE), fleet.admit(BASE)]
    assert fleet.advance() == []
    begun = time.monotonic()
    for slot in slots:
        fleet.discard(slot)

    assert time.monotonic() - begun < RETURN_AFTER / 4
    # The host's answer has evaluations of both models, whose slots are free now.
    slot = fleet.admit(BASE)
    outcomes = outcomes_of(fleet, {slot: BASE})
    assert [point.step for point in outcomes[slot] if isinstance(point, EvalPoint)] == [4, 8, 10]


class Refuses(CpuEngine):
    """An engine without memory for the second model."""

    def admit(self, config: Config) -> int:
        if config.seed == 2:
            raise ModelTooLarge("too large")
        return super().admit(config)


def test_model_too_large_is_an_outcome(start: Start, small_corpus: Corpus) -> None:
    fleet = start(Joining(ThreadHost("small", partial(Refuses, small_corpus, 2))))
    good, large = fleet.admit(BASE.replace(max_steps=4)), fleet.admit(BASE.replace(seed=2))
    outcomes = outcomes_of(fleet, {good: BASE.replace(max_steps=4), large: BASE})

    assert isinstance(outcomes[large][0], OutOfMemory)
    assert isinstance(outcomes[good][0], EvalPoint)
    assert fleet.remove(large).history == ()


class Broken(CpuEngine):
    def advance(self) -> list[tuple[int, Outcome]]:
        raise ZeroDivisionError("a bug")


def test_bug_of_a_worker_is_raised(start: Start, small_corpus: Corpus) -> None:
    fleet = start(Joining(ThreadHost("broken", partial(Broken, small_corpus, 1))))
    fleet.admit(BASE)

    with pytest.raises(ZeroDivisionError, match="a bug"):
        for _ in range(10):
            fleet.advance()


def test_closed_fleet_refuses(small_corpus: Corpus) -> None:
    fleet = two_hosts(small_corpus, 2)
    fleet.close()

    assert fleet.capacity == 2
    with pytest.raises(RuntimeError, match="the engine is closed"):
        fleet.admit(BASE)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        fleet.advance()


def test_divergence_travels_between_processes() -> None:
    diverged = pickle.loads(pickle.dumps(Diverged(7, 400.0)))

    assert (diverged.step, diverged.loss, str(diverged)) == (7, 400.0, str(Diverged(7, 400.0)))
