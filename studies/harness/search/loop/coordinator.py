"""The loop of a study: ask, admit, advance, report, prune, tell.

One thread of one process owns Optuna's ask and tell. Meanwhile the engine trains in its own
threads, and the tracker writes to MLflow in another one.
"""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from optuna.trial import TrialState

from makemore.data import Corpus
from makemore.engines import (
    Diverged,
    Engine,
    EngineFailed,
    EvalPoint,
    HostLost,
    Outcome,
    OutOfMemory,
)
from makemore.errors import ModelTooLarge, UserError
from makemore.models import ModelClass
from studies.harness.search.loop.queue import Active, TrialQueue
from studies.harness.search.loop.trial_ends import TrialEnds
from studies.harness.search.pruners import is_audited
from studies.harness.store.locks import backend_of
from studies.harness.store.trials import FOLLOW_UP, OUT_OF_MEMORY, TrialRecord
from studies.harness.tracking.sending.tracker import Tracker

MAX_TOO_LARGE = 10  # models in a row that did not fit into memory; then the search gives up
MAX_HOSTS_LOST = 10  # a trial that loses more hosts has probably ended them itself
ADMIT_FOR = 1.0  # seconds; then the loop handles outcomes before it fills more slots
WAIT = 0.5  # seconds between two looks at the launches of other hosts
ASK_AHEAD = 2  # trials asked before a slot is free, so that no slot waits for the sampler


@dataclass
class Coordinator:
    """Runs a study to its total number of trials.

    Args:
        prune: whether to ask the study's pruner.
        audit_pruning: share of the trials to prune that train to their end, see `is_audited`.
        keep_models: number of best trials that keep their checkpoint.
        repeats: most seed repeats of each of the best trials, trained after the search; 0 turns
            them off, None is the default budget of `plan_repeats`.
        finish_best: if the best trial was pruned, train it to its end after the search.
        model: class of the user's model; None for the MLP.
        deadline: value of time.monotonic() at which the search stops; running trials are requeued.
        on_event: called with the trial's record after each outcome.

    Attributes:
        interrupted: a signal stopped the launch.
        timed_out: the deadline passed before the study had its total.
    """

    queue: TrialQueue
    corpus: Corpus
    engine: Engine
    tracker: Tracker
    prune: bool = True
    audit_pruning: float = 0.0
    keep_models: int = 50
    repeats: int | None = 0
    finish_best: bool = False
    model: ModelClass | None = None
    deadline: float = math.inf
    on_event: Callable[[TrialRecord], None] = lambda record: None
    interrupted: bool = False
    timed_out: bool = False
    _asked: deque[Active] = field(default_factory=deque)  # not admitted yet
    _running: dict[int, Active] = field(default_factory=dict)  # by slot
    _too_large: int = 0  # models in a row that did not fit into memory
    _interruptible: bool = False  # a signal may raise KeyboardInterrupt now

    def __post_init__(self) -> None:
        self._ends = TrialEnds(self.queue, self.corpus, self.tracker, self.keep_models)

    @property
    def n_ended(self) -> int:
        """Trials that ended in this launch, follow-up trials included."""
        return self._ends.n_ended

    @property
    def train_s(self) -> float:
        """Seconds of training, summed over the slots."""
        return self._ends.train_s

    # ---- the course of a launch

    def run(self) -> None:
        """Train until the study has its total, the deadline passes or `interrupt` is called.

        Trials that are still running then are requeued for the next launch.

        Raises:
            UserError: the last MAX_TOO_LARGE models did not fit into memory.
            Exception: a bug in the trainer. In both cases, finished trials are stored, and
                unfinished ones requeued.
        """
        try:
            self._train_all()
            if self.finish_best:
                self._follow_up(self.queue.enqueue_finish)
            if self.repeats != 0:
                self._follow_up(partial(self.queue.enqueue_repeats, self.repeats))
        finally:
            out_of_time = self.timed_out and not self.interrupted
            self._requeue_rest("out of time" if out_of_time else "interrupted")

    def interrupt(self) -> None:
        """End the loop soon; for a signal handler. Never breaks off a write to a store."""
        self.interrupted = True
        backend = backend_of(self.queue.study._storage)
        if hasattr(backend, "hurry"):
            backend.hurry()
        if self._interruptible:
            raise KeyboardInterrupt

    def _train_all(self) -> None:
        while not self.interrupted and self._admit():
            self._ask_ahead()
            self.tracker.check()
            for slot, outcome in self._advance():
                self._handle(slot, outcome)

    def _follow_up(self, enqueue: Callable[[], bool]) -> None:
        """Train follow-up trials after the search, without a time limit, until none is enqueued."""
        if self.interrupted:
            return
        if self.timed_out:
            self._stop_search()
        self.deadline = math.inf
        self._train_all()  # those that an earlier launch enqueued
        while not self.interrupted and enqueue():
            self._train_all()

    def _stop_search(self) -> None:
        """Requeue the search's running trials, and let the queue hand out follow-up trials only."""
        for slot, active in self._running.items():
            if not _is_follow_up(active):
                self.engine.discard(slot)
        self._requeue_rest("out of time", keep_follow_ups=True)
        self.queue.closed = True

    # ---- the life of a trial, from asked to told

    def _admit(self) -> bool:
        """Fill the free slots; returns whether there is anything to wait for."""
        if time.monotonic() >= self.deadline:
            self.timed_out = bool(self._running or self._asked) or self.queue.left > 0
            return False
        until = time.monotonic() + ADMIT_FOR
        while len(self._running) < self.engine.capacity and time.monotonic() < until:
            active = self._asked.popleft() if self._asked else self.queue.next()
            if active is None:
                break
            first_time = active.hosts_lost == 0
            if first_time:
                active.record.started = time.time()
            try:
                slot = self.engine.admit(active.config)
            except (ModelTooLarge, MemoryError):
                self._end_untrained(active, TrialState.PRUNED, OUT_OF_MEMORY)
                self._count_too_large()
                continue
            except EngineFailed as error:
                self._end_untrained(active, TrialState.FAIL, f"engine failed: {error}")
                continue
            self._running[slot] = active
            if first_time:
                self.tracker.start(active.record)
        if not self._running and not self._asked:
            # A fleet has no host now, or all models were refused. A waiting trial keeps the study
            # going.
            self._asked.extend(filter(None, [self.queue.next()]))
        if not self._running and not self._asked and self.queue.awaits_others():
            time.sleep(WAIT)
            return True
        return bool(self._running or self._asked)

    def _end_untrained(self, active: Active, state: TrialState, reason: str) -> None:
        """Store the end of a trial whose model could not be made."""
        self.tracker.start(active.record)
        folder = self._ends.store(active, None, state, reason)
        self._ends.publish(active.record, folder)
        self.on_event(active.record)

    def _count_too_large(self) -> None:
        self._too_large += 1
        if self._too_large == MAX_TOO_LARGE:
            raise UserError(
                f"the last {MAX_TOO_LARGE} models did not fit into memory; lower the ranges of "
                "n_hidden, batch_size, n_embd or block_size, or train fewer at once (--workers)."
            )

    def _ask_ahead(self) -> None:
        # With one slot, each proposal must know all earlier results: then an interrupted study
        # continues with the same proposals.
        if self.engine.capacity == 1:
            return
        while len(self._asked) < ASK_AHEAD:
            active = self.queue.next()
            if active is None:
                return
            self._asked.append(active)

    def _advance(self) -> list[tuple[int, Outcome]]:
        """Wait for the next outcomes; the only place where a signal may interrupt."""
        try:
            self._interruptible = True
            return [] if self.interrupted else self.engine.advance()
        except KeyboardInterrupt:
            return []
        finally:
            self._interruptible = False

    def _handle(self, slot: int, outcome: Outcome) -> None:
        active = self._running.get(slot)
        if active is None:
            return  # an earlier outcome of the same call ended the trial
        if not self.queue.owns(active):
            self._give_up(slot)
        elif isinstance(outcome, EvalPoint):
            self._too_large = 0
            self._report(active, outcome)
            if outcome.step >= active.config.max_steps:
                self._finish(slot, TrialState.COMPLETE, "finished")
            elif self._should_prune(active, outcome):
                self._finish(slot, TrialState.PRUNED, "pruned")
        elif isinstance(outcome, Diverged):
            active.record.metrics["diverged_step"] = outcome.step
            self._finish(slot, TrialState.PRUNED, f"diverged at step {outcome.step}")
        elif isinstance(outcome, OutOfMemory):
            self._finish(slot, TrialState.PRUNED, OUT_OF_MEMORY)
        elif isinstance(outcome, HostLost) and active.hosts_lost < MAX_HOSTS_LOST:
            self.engine.discard(slot)
            self._train_again(slot)
        elif isinstance(outcome, EngineFailed):
            self._finish(slot, TrialState.FAIL, f"engine failed: {outcome}")
        self.on_event(active.record)
        if isinstance(outcome, OutOfMemory):
            self._count_too_large()

    def _report(self, active: Active, point: EvalPoint) -> None:
        active.record.times.append(time.time())
        active.record.points.append(point)
        # A requeued trial reported its first steps already.
        if point.step > active.reported_step:
            active.trial.report(point.dev_loss, point.step)

    def _should_prune(self, active: Active, point: EvalPoint) -> bool:
        """Return whether to stop a trial early. This is the only place that asks the pruner.

        Follow-up trials are never pruned, and neither are audited ones, which the pruner wanted to
        stop before. An earlier launch judged all steps that it reported, but perhaps not the last
        one: it may have ended before it could store the decision.
        """
        if not self.prune or _is_follow_up(active) or point.step < active.reported_step:
            return False
        if "audited" in active.record.tags or not active.trial.should_prune():
            return False
        if not is_audited(self.queue.seed, active.trial.number, self.audit_pruning):
            return True
        active.trial.set_user_attr("audited", point.step)
        active.record.tags["audited"] = str(point.step)
        return False

    def _finish(self, slot: int, state: TrialState, reason: str) -> None:
        """Store the end of a running trial: its files, Optuna's record, then MLflow's."""
        active = self._running[slot]
        result = None
        try:
            result = self.engine.remove(slot)
        except HostLost:
            if state != TrialState.FAIL:
                self._train_again(slot)
                return
        folder = self._ends.store(active, result, state, reason)
        # Only now: if anything above fails, the trial still counts as running, and is requeued.
        del self._running[slot]
        self._ends.publish(active.record, folder)

    def _train_again(self, slot: int) -> None:
        """Train a trial again whose host is lost: it is the next to be admitted."""
        active = self._running.pop(slot)
        active.hosts_lost += 1
        record = active.record
        steps = [point.step for point in record.points]
        active.reported_step = max([active.reported_step, *steps])
        # Their weights are lost, and the next training may end earlier.
        record.points.clear()
        record.times.clear()
        self._asked.appendleft(active)

    def _give_up(self, slot: int) -> None:
        """Leave a trial to the launch that has taken it over."""
        self.engine.discard(slot)
        active = self._running.pop(slot)
        self._ends.give_back(active, "taken over by another launch")

    def _requeue_rest(self, reason: str, *, keep_follow_ups: bool = False) -> None:
        """Requeue asked and running trials for the next launch."""

        def is_kept(active: Active) -> bool:
            return keep_follow_ups and _is_follow_up(active)

        for active in [*self._running.values(), *self._asked]:
            if is_kept(active):
                continue
            self._ends.give_back(active, reason)
        self._running = {slot: a for slot, a in self._running.items() if is_kept(a)}
        self._asked = deque(a for a in self._asked if is_kept(a))


def _is_follow_up(active: Active) -> bool:
    return not FOLLOW_UP.isdisjoint(active.record.tags)
