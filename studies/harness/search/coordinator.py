"""The loop of a study: ask, admit, advance, report, prune, tell.

One thread of one process owns Optuna's ask and tell; engines train, and a tracker writes to MLflow, beside it.
"""

from __future__ import annotations

import bisect
import math
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from optuna.trial import TrialState

from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus
from makemore.diagnostics import diagnose
from makemore.engines import Diverged, Engine, EngineFailed, EvalPoint, Outcome, TrainResult
from makemore.model import MLP
from makemore.sampling import sample_words
from studies.harness.search.queue import Active, TrialQueue
from studies.harness.store.launches import requeue
from studies.harness.store.trials import FOLLOW_UP, TrialRecord, dev_loss, ranked
from studies.harness.tracking.tracker import Tracker

MAX_RETRIES = 2  # how often the parameters of a trial whose engine failed are trained again
REPEATED = 3  # how many of the best trials are trained with further seeds
SAMPLE_LENGTH = 24  # characters; a model that learnt nothing would go on for long
ASK_AHEAD = 2  # trials asked before a slot is free, so that no slot waits for the sampler


@dataclass
class Coordinator:
    """Runs a study to its total number of trials.

    Args:
        prune: whether the study's pruner is asked.
        keep_models: how many of the best trials keep their checkpoint.
        repeats: further seeds that the best trials are trained with at the end.
        finish_best: train the best trial to its end if it was pruned.
        deadline: of time.monotonic, at which the search stops; what then runs is given back.
        on_event: called after each outcome, with the trial's record.
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
    best_model: tuple[int, MLP] | None = None  # number and model of the best trial of this launch
    train_s: float = 0.0  # seconds that slots spent training, summed over slots
    interrupted: bool = False
    timed_out: bool = False  # the deadline passed before the study had its total
    _waiting: bool = False  # in the one place where a signal may break in
    _asked: deque[Active] = field(default_factory=deque)
    _running: dict[int, Active] = field(default_factory=dict)
    _lowest: float = math.inf  # dev loss of the study, repeats apart
    _kept: list[tuple[float, int]] = field(
        default_factory=list
    )  # (dev loss, number) of the trials with a checkpoint

    def run(self) -> None:
        """Train until the study has its total, the deadline or `interrupt`; what then still runs is given back.

        Raises:
            Exception: a bug in the trainer, after everything finished is stored and what runs is given back.
        """
        best = ranked(self.queue.study.get_trials(deepcopy=False))
        self._kept = [(dev_loss(t) or 0.0, t.number) for t in best[: self.keep_models]]
        self._lowest = min((dev_loss(t) or math.inf for t in best[:1]), default=math.inf)
        self._drop_surplus([t.number for t in best])
        try:
            self._loop()
            if self.finish_best and not self.interrupted:
                self._after(self.queue.enqueue_finish)
            if self.repeats and not self.interrupted:
                self._after(partial(self.queue.enqueue_repeats, REPEATED, self.repeats))
        finally:
            self._requeue_rest(
                "out of time" if self.timed_out and not self.interrupted else "interrupted"
            )

    def _drop_surplus(self, ranking: list[int]) -> None:
        """Drop the checkpoints that an earlier launch kept and this one need not."""
        study = self.queue.study
        before = study.user_attrs.get("keep_models", self.keep_models)
        for number in ranking[self.keep_models : before]:
            self.tracker.drop_model(number)
        if before != self.keep_models or "keep_models" not in study.user_attrs:
            study.set_user_attr("keep_models", self.keep_models)

    def _after(self, enqueue: Callable[[], None]) -> None:
        """Train what is owed after the search, whatever the time."""
        if self.timed_out:
            for slot, active in self._running.items():
                if FOLLOW_UP.isdisjoint(active.record.tags):
                    self.engine.remove(slot)
            self._requeue_rest("out of time", exclude=FOLLOW_UP)
            self.queue.closed = True
        self.deadline = math.inf
        enqueue()
        self._loop()

    def _loop(self) -> None:
        while not self.interrupted and self._admit():
            self._ask_ahead()
            self.tracker.check()
            for slot, outcome in self._advance():
                self._handle(slot, outcome)
            self.queue.launch.beat()

    def interrupt(self) -> None:
        """End the loop soon; for a signal handler. Between two writes to a store, never in one."""
        self.interrupted = True
        if self._waiting:
            raise KeyboardInterrupt

    def _advance(self) -> list[tuple[int, Outcome]]:
        try:
            self._waiting = True
            return [] if self.interrupted else self.engine.advance()
        except KeyboardInterrupt:
            return []
        finally:
            self._waiting = False

    # ---- ask and admit

    def _admit(self) -> bool:
        """Fill the free slots; returns whether anything runs."""
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
        if self.engine.capacity == 1:
            return  # with one slot each proposal knows all results, so that an interrupted study goes on the same
        while len(self._asked) < ASK_AHEAD:
            active = self.queue.next()
            if active is None:
                return
            self._asked.append(active)

    # ---- outcomes

    def _handle(self, slot: int, outcome: Outcome) -> None:
        active = self._running[slot]
        if isinstance(outcome, EvalPoint):
            active.record.times.append(time.time())
            active.record.points.append(outcome)
            if (
                outcome.step > active.seen_step
            ):  # what a given-back trial reported before stands already
                active.trial.report(outcome.dev_loss, outcome.step)
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

    def _should_prune(self, active: Active, point: EvalPoint) -> bool:
        asked = (
            self.prune
            and FOLLOW_UP.isdisjoint(active.record.tags)
            and point.step > active.seen_step
        )
        return asked and active.trial.should_prune()

    def _finish(self, slot: int, state: TrialState, reason: str) -> None:
        """Store a trial's end: first its files, then Optuna's record, then MLflow's."""
        active = self._running[slot]
        record, trial = active.record, active.trial
        result = self.engine.remove(slot)
        self.train_s += result.seconds
        record.state, record.reason, record.ended = state.name, reason, time.time()
        record.metrics |= {"seconds": result.seconds, "n_params": result.n_params}
        best = record.best
        if best is not None and state != TrialState.FAIL:
            record.metrics |= diagnose(result.model, best, self.corpus)
        folder = self._write_files(record, result)
        trial.set_user_attr("summary", record.summary())
        if state == TrialState.FAIL:
            self._retry(active)
        self.queue.study.tell(
            trial, best.dev_loss if best and state == TrialState.COMPLETE else None, state=state
        )
        del self._running[slot]  # only now: what fails before leaves a trial that is given back
        if best is not None and state != TrialState.FAIL and "repeat_of" not in record.tags:
            if self.best_model is None or best.dev_loss < self._lowest:
                self.best_model = record.number, result.model
            self._lowest = min(self._lowest, best.dev_loss)
        self.tracker.finish(record, folder, self._lowest if math.isfinite(self._lowest) else None)

    def _write_files(self, record: TrialRecord, result: TrainResult) -> Path:
        folder = self.tracker.folder(record)
        origin = {
            "study": self.queue.study.study_name,
            "trial": record.number,
            "data_sha256": self.corpus.sha256,
        }
        (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
        best = record.best
        if best is None or record.state == "FAIL":
            return folder
        words = sample_words(
            result.model, self.corpus.vocab, 20, seed=record.config.seed, max_length=SAMPLE_LENGTH
        )
        (folder / "samples.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        if "repeat_of" in record.tags:
            return folder  # its loss is another draw of a config that has its checkpoint
        bisect.insort(self._kept, (best.dev_loss, record.number))
        for _, number in self._kept[self.keep_models :]:
            if number != record.number:
                self.tracker.drop_model(number)
        del self._kept[self.keep_models :]
        if any(number == record.number for _, number in self._kept):
            losses = {
                "train_loss": best.train_loss,
                "dev_loss": best.dev_loss,
                "best_step": best.step,
            }
            save_checkpoint(
                folder / "model.safetensors",
                result.model,
                self.corpus.vocab,
                losses=losses,
                origin=origin,
            )
        return folder

    def _retry(self, active: Active) -> None:
        """Let the parameters of a trial whose engine failed be trained again, as a new trial."""
        attrs = active.trial.user_attrs
        tries = int(attrs.get("tries", 0)) + 1
        if tries <= MAX_RETRIES:
            again = {"retry_of": active.trial.number, "tries": tries, "seed": active.config.seed}
            again |= {name: attrs[name] for name in FOLLOW_UP if name in attrs}
            self.queue.study.enqueue_trial(active.record.params, user_attrs=again)
            active.trial.set_user_attr("replaced", "trained again after an engine failed")

    def _requeue_rest(self, reason: str, exclude: frozenset[str] = frozenset()) -> None:
        """Let what did not end wait for the next launch, except trials with one of some marks."""
        for active in [*self._running.values(), *self._asked]:
            if not exclude.isdisjoint(active.record.tags):
                continue
            requeue(self.queue.study, active.trial._trial_id)
            record = active.record
            record.state, record.reason, record.ended = "INTERRUPTED", reason, time.time()
            self.tracker.finish(record, None, None)
        self._running = {
            slot: a for slot, a in self._running.items() if not exclude.isdisjoint(a.record.tags)
        }
        self._asked = deque(a for a in self._asked if not exclude.isdisjoint(a.record.tags))
