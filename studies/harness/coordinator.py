"""The loop of a study: ask, admit, advance, report, prune, tell.

One thread of one process owns Optuna's ask and tell; engines train, and a tracker writes to MLflow, beside it.
"""

from __future__ import annotations

import bisect
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from makemore.checkpoint import save_checkpoint
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import Diverged, Engine, EngineFailed, EvalPoint, Outcome, TrainResult
from makemore.sampling import sample_words
from studies.harness.diagnostics import diagnose
from studies.harness.records import TrialRecord, dev_loss, ranked, trial_seed, trial_tags
from studies.harness.spaces import Space
from studies.harness.storage import Launch, exclusive, give_back
from studies.harness.tracking import Tracker

MAX_RETRIES = 2  # how often the parameters of a trial whose engine failed are trained again
MAX_TWINS = 100  # proposals in a row that were trained already, after which the space is taken for exhausted
ASK_AHEAD = 2  # trials asked before a slot is free, so that no slot waits for the sampler


class Exhausted(ValueError):
    """The sampler proposes nothing that was not trained already."""


@dataclass
class Active:
    """A trial that was asked, and is or will be trained."""

    trial: optuna.Trial
    config: Config
    record: TrialRecord
    seen_step: int  # the last step that an earlier, interrupted training of it reported


@dataclass
class Coordinator:
    """Runs a study to its total number of trials.

    Args:
        total: trials that the study shall have in the end, those of earlier launches counted.
        make_sampler: seed -> sampler. Each trial is drawn by a sampler seeded by the study's seed and the trial's
            number, so that a study that was interrupted goes on as if it had not been.
        prune: whether the study's pruner is asked.
        keep_models: how many of the best trials keep their checkpoint.
        on_event: called after each outcome, with the trial's record.
    """

    study: optuna.Study
    space: Space
    base: Config
    corpus: Corpus
    engine: Engine
    tracker: Tracker
    launch: Launch
    total: int
    seed: int
    make_sampler: Callable[[int], BaseSampler]
    prune: bool = True
    keep_models: int = 50
    on_event: Callable[[TrialRecord], None] = lambda record: None
    train_s: float = 0.0  # seconds that slots spent training, summed over slots
    interrupted: bool = False
    _waiting: bool = False  # in the one place where a signal may break in
    _asked: deque[Active] = field(default_factory=deque)
    _running: dict[int, Active] = field(default_factory=dict)
    _kept: list[tuple[float, int]] = field(default_factory=list)  # (dev loss, number) of the trials with a checkpoint

    def run(self) -> None:
        """Train until the study has its total or `interrupt` is called; what then still runs is given back.

        Raises:
            Exception: a bug in the trainer, after everything finished is stored and what runs is given back.
        """
        self._kept = [(dev_loss(t) or 0.0, t.number) for t in ranked(self.study.get_trials(deepcopy=False))]
        del self._kept[self.keep_models :]
        try:
            while not self.interrupted and self._admit():
                self._ask_ahead()
                for slot, outcome in self._advance():
                    self._handle(slot, outcome)
                self.launch.beat()
        finally:
            self._give_back_rest()

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
        while len(self._running) < self.engine.capacity:
            active = self._asked.popleft() if self._asked else self._ask()
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
            active = self._ask()
            if active is None:
                return
            self._asked.append(active)

    def _ask(self) -> Active | None:
        """The next trial, or None when the study has its total. Never two trials of the same parameters."""
        for _ in range(MAX_TWINS):
            trial = self._claim()
            if trial is None:
                return None
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            seed = frozen.user_attrs.get("seed", trial_seed(self.seed, trial.number))
            self.study.sampler = self.make_sampler(trial_seed(self.seed + 1, trial.number))
            config = self.space(trial, self.base).replace(seed=seed)
            twin = None if "repeat_of" in frozen.user_attrs else self._twin(trial)
            if twin is None:
                trial.set_user_attr("seed", seed)
                tags = {**trial_tags(frozen), "launch": self.launch.id}
                record = TrialRecord(trial.number, config, dict(trial.params), time.time(), tags)
                return Active(trial, config, record, max(frozen.intermediate_values, default=-1))
            trial.set_user_attr("replaced", f"the same parameters as trial {twin}")
            self.study.tell(trial, state=TrialState.FAIL)
        raise Exhausted(f"the search space holds nothing new: its last {MAX_TWINS} proposals had all been trained.")

    def _claim(self) -> optuna.Trial | None:
        """Take a waiting trial or make a new one, unless the total is reached."""
        with exclusive(f"ask-{self.study.study_name}"):
            trials = self.study.get_trials(deepcopy=False)
            if sum(counts(t) for t in trials) >= self.total:
                return None
            trial = self.study.ask()
            trial.set_user_attr("launch", self.launch.id)
            return trial

    def _twin(self, trial: optuna.Trial) -> int | None:
        for other in self.study.get_trials(deepcopy=False):
            if other.number != trial.number and counts(other) and other.params == trial.params:
                return other.number
        return None

    # ---- outcomes

    def _handle(self, slot: int, outcome: Outcome) -> None:
        active = self._running[slot]
        if isinstance(outcome, EvalPoint):
            active.record.times.append(time.time())
            active.record.points.append(outcome)
            if outcome.step > active.seen_step:  # what a given-back trial reported before stands already
                active.trial.report(outcome.dev_loss, outcome.step)
            if outcome.step >= active.config.max_steps:
                self._finish(slot, TrialState.COMPLETE, "finished")
            elif self.prune and outcome.step > active.seen_step and active.trial.should_prune():
                self._finish(slot, TrialState.PRUNED, "pruned")
        elif isinstance(outcome, Diverged):
            active.record.metrics["diverged_step"] = outcome.step
            self._finish(slot, TrialState.PRUNED, f"diverged at step {outcome.step}")
        elif isinstance(outcome, EngineFailed):
            self._finish(slot, TrialState.FAIL, f"engine failed: {outcome}")
        self.on_event(active.record)

    def _finish(self, slot: int, state: TrialState, reason: str) -> None:
        """Store a trial's end: first its files, then Optuna's record, then MLflow's."""
        active = self._running.pop(slot)
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
        self.study.tell(trial, best.dev_loss if best and state == TrialState.COMPLETE else None, state=state)
        lowest = min((loss for loss, _ in self._kept[:1]), default=None)
        self.tracker.finish(record, folder, lowest)

    def _write_files(self, record: TrialRecord, result: TrainResult) -> Path:
        folder = self.tracker.folder(record)
        origin = {"study": self.study.study_name, "trial": record.number, "data_sha256": self.corpus.sha256}
        (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
        best = record.best
        if best is None or record.state == "FAIL":
            return folder
        words = sample_words(result.model, self.corpus.vocab, 20, seed=record.config.seed)
        (folder / "samples.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        bisect.insort(self._kept, (best.dev_loss, record.number))
        for _, number in self._kept[self.keep_models :]:
            if number != record.number:
                self.tracker.drop_model(number)
        del self._kept[self.keep_models :]
        if any(number == record.number for _, number in self._kept):
            losses = {"train_loss": best.train_loss, "dev_loss": best.dev_loss, "best_step": best.step}
            save_checkpoint(folder / "model.safetensors", result.model, self.corpus.vocab, losses=losses, origin=origin)
        return folder

    def _retry(self, active: Active) -> None:
        """Let the parameters of a trial whose engine failed be trained again, as a new trial."""
        attrs = active.trial.user_attrs
        tries = int(attrs.get("tries", 0)) + 1
        if tries <= MAX_RETRIES:
            again = {"retry_of": active.trial.number, "tries": tries, "seed": active.config.seed}
            self.study.enqueue_trial(active.record.params, user_attrs=again)
            active.trial.set_user_attr("replaced", "trained again after an engine failed")

    def _give_back_rest(self) -> None:
        """Let what did not end wait for the next launch."""
        for active in [*self._running.values(), *self._asked]:
            give_back(self.study, active.trial._trial_id)
            record = active.record
            record.state, record.reason, record.ended = "INTERRUPTED", "interrupted", time.time()
            self.tracker.finish(record, None, None)
        self._running.clear()
        self._asked.clear()


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards the study's total: all do that run or ended, but repeats and replaced ones."""
    if "repeat_of" in trial.user_attrs or "replaced" in trial.user_attrs:
        return False
    return trial.state != TrialState.WAITING
