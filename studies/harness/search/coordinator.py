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
from makemore.diagnostics import diagnose
from makemore.engines import Diverged, Engine, EngineFailed, EvalPoint, Outcome
from makemore.model import MLP
from studies.harness.search.queue import Active, TrialQueue
from studies.harness.search.trial_files import TrialFiles
from studies.harness.store.launches import requeue
from studies.harness.store.trials import FOLLOW_UP, TrialRecord, dev_loss, ranked
from studies.harness.tracking.tracker import Tracker

MAX_RETRIES = 2  # retries of a trial whose engine failed
REPEATED = 3  # number of best trials that get seed repeats
ASK_AHEAD = 2  # trials asked before a slot is free, so that no slot waits for the sampler


@dataclass
class Coordinator:
    """Runs a study to its total number of trials.

    Args:
        prune: whether to ask the study's pruner.
        keep_models: number of best trials that keep their checkpoint.
        repeats: seed repeats of each of the best trials, trained after the search.
        finish_best: if the best trial was pruned, train it to its end after the search.
        deadline: value of time.monotonic() at which the search stops; running trials are requeued.
        on_event: called with the trial's record after each outcome.

    Attributes:
        best_model: number and model of the best trial of this launch.
        n_ended: trials that ended in this launch, follow-up trials included.
        train_s: seconds of training, summed over the slots.
        interrupted: a signal stopped the launch.
        timed_out: the deadline passed before the study had its total.
    """

    queue: TrialQueue
    corpus: Corpus
    engine: Engine
    tracker: Tracker
    prune: bool = True
    keep_models: int = 50
    repeats: int = 0
    finish_best: bool = False
    deadline: float = math.inf
    on_event: Callable[[TrialRecord], None] = lambda record: None
    best_model: tuple[int, MLP] | None = None
    n_ended: int = 0
    train_s: float = 0.0
    interrupted: bool = False
    timed_out: bool = False
    _asked: deque[Active] = field(default_factory=deque)  # not admitted yet
    _running: dict[int, Active] = field(default_factory=dict)  # by slot
    _lowest: float = math.inf  # dev loss of the study, seed repeats excluded
    _interruptible: bool = False  # a signal may raise KeyboardInterrupt now

    def __post_init__(self) -> None:
        self._files = TrialFiles(self.queue.study, self.corpus, self.tracker, self.keep_models)

    # ---- the course of a launch

    def run(self) -> None:
        """Train until the study has its total, the deadline passes or `interrupt` is called.

        Trials that are still running then are requeued for the next launch.

        Raises:
            Exception: a bug in the trainer. Finished trials are stored, unfinished ones requeued.
        """
        best = ranked(self.queue.study.get_trials(deepcopy=False))[:1]
        self._lowest = min((dev_loss(t) or math.inf for t in best), default=math.inf)
        self._files.trim()
        try:
            self._train_all()
            if self.finish_best:
                self._follow_up(self.queue.enqueue_finish)
            if self.repeats:
                self._follow_up(partial(self.queue.enqueue_repeats, REPEATED, self.repeats))
        finally:
            out_of_time = self.timed_out and not self.interrupted
            self._requeue_rest("out of time" if out_of_time else "interrupted")

    def interrupt(self) -> None:
        """End the loop soon; for a signal handler. Never breaks off a write to a store."""
        self.interrupted = True
        if self._interruptible:
            raise KeyboardInterrupt

    def _train_all(self) -> None:
        while not self.interrupted and self._admit():
            self._ask_ahead()
            self.tracker.check()
            for slot, outcome in self._advance():
                self._handle(slot, outcome)
            self.queue.launch.beat()

    def _follow_up(self, enqueue: Callable[[], None]) -> None:
        """Train follow-up trials after the search, without a time limit."""
        if self.interrupted:
            return
        if self.timed_out:
            self._stop_search()
        self.deadline = math.inf
        enqueue()
        self._train_all()

    def _stop_search(self) -> None:
        """Requeue the search's running trials, and let the queue hand out follow-up trials only."""
        for slot, active in self._running.items():
            if not _is_follow_up(active):
                self.engine.remove(slot)
        self._requeue_rest("out of time", keep_follow_ups=True)
        self.queue.closed = True

    # ---- the life of a trial, from asked to told

    def _admit(self) -> bool:
        """Fill the free slots; returns whether any trial is running."""
        if time.monotonic() >= self.deadline:
            self.timed_out = bool(self._running or self._asked) or self.queue.left > 0
            return False
        while len(self._running) < self.engine.capacity:
            active = self._asked.popleft() if self._asked else self.queue.next()
            if active is None:
                break
            active.record.started = time.time()
            slot = self.engine.admit(active.config)
            self._running[slot] = active
            self.tracker.start(active.record)
        return bool(self._running)

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
        active = self._running[slot]
        if isinstance(outcome, EvalPoint):
            self._report(active, outcome)
            if outcome.step >= active.config.max_steps:
                self._finish(slot, TrialState.COMPLETE, "finished")
            elif self._should_prune(active, outcome):
                self._finish(slot, TrialState.PRUNED, "pruned")
        elif isinstance(outcome, Diverged):
            active.record.metrics["diverged_step"] = outcome.step
            self._finish(slot, TrialState.PRUNED, f"diverged at step {outcome.step}")
        elif isinstance(outcome, EngineFailed):
            self._finish(slot, TrialState.FAIL, f"engine failed: {outcome}")
        self.on_event(active.record)

    def _report(self, active: Active, point: EvalPoint) -> None:
        active.record.times.append(time.time())
        active.record.points.append(point)
        # A requeued trial reported its first steps already.
        if point.step > active.reported_step:
            active.trial.report(point.dev_loss, point.step)

    def _should_prune(self, active: Active, point: EvalPoint) -> bool:
        """Return whether to stop a trial early. This is the only place that asks the pruner.

        Follow-up trials are never pruned. An earlier launch judged all steps that it reported, but
        perhaps not the last one: it may have ended before it could store the decision.
        """
        if not self.prune or _is_follow_up(active) or point.step < active.reported_step:
            return False
        return active.trial.should_prune()

    def _finish(self, slot: int, state: TrialState, reason: str) -> None:
        """Store the end of a trial: first its files, then Optuna's record, then MLflow's."""
        active = self._running[slot]
        record = active.record
        result = self.engine.remove(slot)
        self.train_s += result.seconds
        record.state, record.reason, record.ended = state.name, reason, time.time()
        record.metrics |= {"seconds": result.seconds, "n_params": result.n_params}
        measured = record.best is not None and state != TrialState.FAIL
        if record.best is not None and measured:
            record.metrics |= diagnose(result.model, record.best, self.corpus)
        folder = self._files.write(record, result)

        self._tell(active, state)
        self.n_ended += 1
        # Only now: if anything above fails, the trial still counts as running, and is requeued.
        del self._running[slot]
        if measured and "repeat_of" not in record.tags:
            self._keep_if_best(record, result.model)
        self._files.trim()
        self.tracker.finish(record, folder, self._lowest if math.isfinite(self._lowest) else None)

    def _tell(self, active: Active, state: TrialState) -> None:
        active.trial.set_user_attr("summary", active.record.summary())
        if state == TrialState.FAIL:
            self._retry(active)
        best = active.record.best
        value = best.dev_loss if best and state == TrialState.COMPLETE else None
        self.queue.study.tell(active.trial, value, state=state)

    def _keep_if_best(self, record: TrialRecord, model: MLP) -> None:
        assert record.best is not None
        if self.best_model is None or record.best.dev_loss < self._lowest:
            self.best_model = record.number, model
        self._lowest = min(self._lowest, record.best.dev_loss)

    def _retry(self, active: Active) -> None:
        """Enqueue the parameters of a trial whose engine failed, as a new trial."""
        attrs = active.trial.user_attrs
        tries = int(attrs.get("tries", 0)) + 1
        if tries > MAX_RETRIES:
            return
        again = {"retry_of": active.trial.number, "tries": tries, "seed": active.config.seed}
        again |= {name: attrs[name] for name in FOLLOW_UP if name in attrs}
        self.queue.study.enqueue_trial(active.record.params, user_attrs=again)
        active.trial.set_user_attr("replaced", "trained again after an engine failed")

    def _requeue_rest(self, reason: str, *, keep_follow_ups: bool = False) -> None:
        """Requeue asked and running trials for the next launch."""

        def is_kept(active: Active) -> bool:
            return keep_follow_ups and _is_follow_up(active)

        for active in [*self._running.values(), *self._asked]:
            if is_kept(active):
                continue
            requeue(self.queue.study, active.trial._trial_id)
            record = active.record
            record.state, record.reason, record.ended = "INTERRUPTED", reason, time.time()
            self.tracker.finish(record, None, None)
        self._running = {slot: a for slot, a in self._running.items() if is_kept(a)}
        self._asked = deque(a for a in self._asked if is_kept(a))


def _is_follow_up(active: Active) -> bool:
    return not FOLLOW_UP.isdisjoint(active.record.tags)
