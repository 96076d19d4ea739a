"""A study whose engine is a fleet: hosts are lost, join, and are all away for a while."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from functools import partial

import pytest
from optuna.trial import TrialState

from makemore.data import Corpus
from makemore.engines import EvalPoint, HostLost, Outcome, OutOfMemory
from makemore.engines.cpu.engine import CpuEngine, Slot
from makemore.engines.fleet.fleet import Fleet
from makemore.engines.fleet.host import Host, ThreadHost
from studies.harness.search import opening
from studies.harness.search.loop.coordinator import MAX_HOSTS_LOST
from studies.harness.store.trials import dev_loss
from tests.makemore.engines.fleet.process_host import ProcessHost
from tests.studies.conftest import (
    Launcher,
    outcomes_of,
    runs_by_trial,
    trials_of,
    violations,
)
from tests.studies.harness.search.loop.test_coordinator import inject


class Slow(CpuEngine):
    """An engine with at most five evaluations of a model in a second."""

    def advance(self) -> list[tuple[int, Outcome]]:
        time.sleep(0.2)
        return super().advance()


FindHosts = Callable[[], Sequence[Host]]


def use_fleet(monkeypatch: pytest.MonkeyPatch, find_hosts: Callable[[Corpus], FindHosts]) -> None:
    """Let studies train on a fleet of these hosts."""

    def make(device: str, corpus: Corpus, capacity: int, *_: object) -> Fleet:
        return Fleet(find_hosts(corpus), len(corpus.vocab))

    monkeypatch.setattr(opening, "make_engine", make)


def script(*steps: Callable[[], Sequence[Host]]) -> FindHosts:
    """Return a `find_hosts` that does one step each time it is called, which is once a second."""
    left = list(steps)
    return lambda: left.pop(0)() if left else ()


def test_study_survives_lost_hosts(launch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    killed = []

    def find_hosts(corpus: Corpus) -> FindHosts:
        def process(name: str, slots: int) -> ProcessHost:
            return ProcessHost(name, partial(Slow, corpus, slots))

        first, second = process("first", 2), process("second", 1)

        def kill(host: ProcessHost) -> Sequence[Host]:
            killed.append(host.name)
            host.kill()
            return ()

        return script(
            lambda: [first],
            lambda: [second],
            lambda: kill(first),
            lambda: kill(second),
            lambda: (),  # no host at all
            lambda: [ThreadHost("third", partial(CpuEngine, corpus, 2))],
        )

    assert launch(study="alone", trials=6, steps=2_000, prune=False) == 0
    use_fleet(monkeypatch, find_hosts)
    assert launch(trials=6, steps=2_000, prune=False) == 0

    assert killed == ["first", "second"]
    trials = trials_of("small")
    assert [trial.state for trial in trials] == [TrialState.COMPLETE] * 6
    assert not any("retry_of" in trial.user_attrs for trial in trials)
    for run in runs_by_trial("small").values():
        assert run.data.tags["reason"] == "finished"
    assert violations("small") == []
    # The first ten proposals do not depend on the order of the outcomes.
    assert outcomes_of("small") == outcomes_of("alone")


def test_trial_that_ends_every_host_fails(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    lost: list[int] = []

    def lose(slot: object) -> HostLost | None:
        lost.append(1)
        return HostLost("the host is gone")

    inject(monkeypatch, lose)
    assert launch(trials=1, workers=1) == 0

    trials = trials_of("small")
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 3
    assert "the host is gone" in trials[0].user_attrs["summary"]["reason"]
    assert len(lost) == 3 * (MAX_HOSTS_LOST + 1)
    assert violations("small") == []


def test_lost_weights_leave_no_dev_loss(launch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    """The first host trains for a while and is lost; the second one has no memory for the model."""

    losses: list[int] = []

    def lose_then_refuse(slot: Slot) -> Outcome | None:
        if losses:
            return OutOfMemory("no memory for this model")
        return HostLost("the host is gone") if slot.history else None

    class Counts(CpuEngine):
        def discard(self, slot: int) -> None:
            losses.append(slot)
            super().discard(slot)

    inject(monkeypatch, lose_then_refuse, Counts)
    assert launch(trials=1, workers=1, prune=False) == 0

    (trial,) = trials_of("small")
    assert trial.state == TrialState.PRUNED
    assert dev_loss(trial) is None
    assert not trial.user_attrs["summary"]["has_model"]


def test_second_outcome_of_an_ended_trial_is_ignored(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Twice(CpuEngine):
        """Reports the last evaluation of a model and the loss of its host at once."""

        def advance(self) -> list[tuple[int, Outcome]]:
            outcomes = super().advance()
            ended = [
                slot
                for slot, point in outcomes
                if isinstance(point, EvalPoint) and point.step == 40
            ]
            return [*outcomes, *((slot, HostLost("gone")) for slot in ended)]

    inject(monkeypatch, lambda slot: None, Twice)
    assert launch(trials=3, prune=False) == 0

    assert [trial.state for trial in trials_of("small")] == [TrialState.COMPLETE] * 3
    assert violations("small") == []
