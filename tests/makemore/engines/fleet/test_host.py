"""The worker of a host: what it answers when a model has no room."""

from __future__ import annotations

from functools import partial

from makemore.data import Corpus
from makemore.engines import HostLost, Outcome
from makemore.engines.cpu.engine import CpuEngine
from makemore.engines.fleet.host import Worker
from tests.makemore.engines.test_contract import BASE


class Shrinks(CpuEngine):
    """An engine that has room for one model only after its first evaluation."""

    def advance(self) -> list[tuple[int, Outcome]]:
        outcomes = super().advance()
        self._capacity = 1
        return outcomes


def test_model_without_room_is_returned(small_corpus: Corpus) -> None:
    worker = Worker(partial(Shrinks, small_corpus, 2))
    worker.admit(10, BASE)
    outcomes, capacity = worker.advance()
    assert ([slot for slot, _ in outcomes], capacity) == ([10], 1)

    worker.admit(11, BASE)  # sent before the fleet knew the new capacity

    ((slot, outcome),), capacity = worker.advance()
    assert slot == 11 and isinstance(outcome, HostLost)
    assert worker.remove(11) == (None, 0.0)
    ((slot, _),), _ = worker.advance()
    assert slot == 10
    worker.close()
