"""The queue of a study's trials: waiting trials first, then new ones from the sampler."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field

import optuna
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.search.samplers.view import SearchSampler, SearchView
from studies.harness.search.spaces import Space
from studies.harness.store.launches import Launch, lease_of, requeue_dead, this_host
from studies.harness.store.locks import exclusive
from studies.harness.store.trials import (
    FOLLOW_UP,
    MEASURED,
    TrialRecord,
    is_follow_up,
    is_infeasible,
    sampler_seed,
    trial_seed,
    trial_tags,
)
from studies.harness.store.winner.follow_ups import unfinished_best
from studies.harness.store.winner.race import plan_repeats

logger = logging.getLogger(__name__)
MAX_RETRIES = 2  # retries of a trial whose engine failed
ORPHAN_CHECK = 5.0  # seconds between two checks for trials of crashed launches

# The space is exhausted after this many proposals in a row that were trained already.
MAX_DUPLICATES = 20


@dataclass
class Active:
    """A trial that was asked for and is or will be trained.

    Attributes:
        reported_step: last step that an earlier, interrupted training of it reported, or -1.
        hosts_lost: how often the host that trained it was lost, see `HostLost`.
    """

    trial: optuna.Trial
    config: Config
    record: TrialRecord
    reported_step: int
    hosts_lost: int = 0


@dataclass
class TrialQueue:
    """Asks Optuna for trials until the study has its total.

    Attributes:
        total: total trials of the study, earlier launches included.
        seed: seed of the study.
        make_sampler: seed -> sampler. Each trial has its own sampler, seeded by the study's seed
            and the trial's number, so an interrupted study continues as if it had not stopped.
        table: the trials of the study.
        exhausted: the sampler proposes only parameters that were trained already.
        closed: only follow-up trials are still handed out.
    """

    study: optuna.Study
    space: Space
    base: Config
    launch: Launch
    total: int
    seed: int
    make_sampler: Callable[[int], BaseSampler]
    exhausted: bool = False
    closed: bool = False
    _orphans_checked: float = -math.inf  # time.monotonic() of the last check
    _first_beats: dict[str, float] = field(default_factory=dict)  # of other launches, as first seen

    def __post_init__(self) -> None:
        self.table = TrialTable(self.study)
        self._view = SearchView(self.study, self.table)

    @property
    def left(self) -> int:
        """Number of trials that the study still lacks."""
        return self.total - self.table.refresh().n_counted

    def _asking(self) -> AbstractContextManager[None]:
        """Return the lock of all changes to the queue; launches on all machines share it."""
        return exclusive(f"ask-{self.study.study_name}", self.study._storage)

    # ---- the next trial

    def next(self) -> Active | None:
        """Return the next trial, or None if there is none.

        Two trials never have the same parameters, except follow-up trials.
        """
        for _ in range(MAX_DUPLICATES):
            trial = self._claim()
            if trial is None:
                return None
            active = self._suggest(trial)
            if active is not None:
                return active
        self.exhausted = True
        self.closed = True
        return None

    def _claim(self) -> optuna.Trial | None:
        """Take a waiting trial or create one, until the total is reached.

        Follow-up trials do not count towards the total, so they are taken beyond it.
        """
        with self._asking():
            table = self.table.refresh()
            if self.closed or table.n_counted >= self.total:
                for waiting in table.waiting_follow_ups():
                    if taken := self._take(waiting):
                        return taken
                if self.closed or not self._requeue_orphans():
                    return None
            trial = self.study.ask()
            trial.set_user_attr("launch", self.launch.id)
            return trial

    def _take(self, waiting: FrozenTrial) -> optuna.Trial | None:
        """Take this waiting trial, unless another launch has it; `ask` would take the first one."""
        if not self.study._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING):
            return None
        trial = optuna.Trial(self.study, waiting._trial_id)
        trial.set_user_attr("launch", self.launch.id)
        return trial

    def _requeue_orphans(self) -> bool:
        """Requeue trials of crashed launches; returns whether there were any.

        It checks at most once every few seconds.
        """
        if time.monotonic() - self._orphans_checked < ORPHAN_CHECK:
            return False
        self._orphans_checked = time.monotonic()
        return bool(requeue_dead(self.study, exclude=self.launch.id))

    def awaits_others(self) -> bool:
        """Return whether a launch on another host may be dead, with trials that remain to be done.

        It is alive if it writes another heartbeat while this launch waits. If it is silent for too
        long, `next` requeues its trials.
        """
        if self.closed:
            return False
        running = self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        for launch in {str(trial.user_attrs.get("launch", "")) for trial in running}:
            lease = lease_of(self.study, launch)
            if lease is not None and lease["host"] != this_host():
                if launch not in self._first_beats:
                    logger.warning("Waiting for a sign of launch %s on another host.", launch)
                if lease["seen"] == self._first_beats.setdefault(launch, lease["seen"]):
                    return True
        return False

    def _suggest(self, trial: optuna.Trial) -> Active | None:
        """Suggest the trial's parameters; returns None if another trial has the same ones."""
        frozen = self.table.refresh().trials[trial.number]
        seed = frozen.user_attrs.get("seed", trial_seed(self.seed, trial.number))
        sampler = self.make_sampler(sampler_seed(self.seed, trial.number))
        self.study.sampler = SearchSampler(sampler, self._view)
        config = self.space(trial, self.base).replace(seed=seed)

        duplicate = None if is_follow_up(frozen) else self.table.refresh().duplicate_of(trial)
        if duplicate is not None:
            trial.set_user_attr("replaced", f"the same parameters as trial {duplicate}")
            self.study.tell(trial, state=TrialState.FAIL)
            return None

        trial.set_user_attr("seed", seed)
        tags = {**trial_tags(frozen), "launch": self.launch.id}
        record = TrialRecord(trial.number, config, dict(trial.params), time.time(), tags)
        return Active(trial, config, record, max(frozen.intermediate_values, default=-1))

    def owns(self, active: Active) -> bool:
        """Return whether the trial still belongs to this launch.

        A machine that slept for minutes wrote no heartbeat, so another launch may have its trials.
        """
        if not self.launch.has_lapsed():
            return True
        trial = self.study._storage.get_trial(active.trial._trial_id)
        return (
            trial.state == TrialState.RUNNING and trial.user_attrs.get("launch") == self.launch.id
        )

    # ---- the end of a trial

    def tell(self, active: Active, state: TrialState) -> None:
        """Store the end of a trial in Optuna, from its record.

        Args:
            active: the trial; its record is complete.
            state: COMPLETE, PRUNED, or FAIL if its engine failed and its parameters are trained
                again.
        """
        record, trial = active.record, active.trial
        trial.set_user_attr("summary", record.summary())
        if state == TrialState.FAIL:
            self._retry(active)
        if is_infeasible(record.reason):
            # TPE ranks it below every trial that could train, however far this one trained.
            trial.set_constraint("trains to its end", 1.0)
        if "repeat_of" in record.tags:
            # Optuna's own best_trial, and dashboards, then name a trial of the search.
            trial.set_constraint("is no seed repeat", 1.0)
        # `Study.tell` would store the last reported loss of a pruned trial, perhaps not the one of
        # its checkpoint. It also copies the whole trial.
        values = [record.best.dev_loss] if record.best and state in MEASURED else None
        self.study._storage.set_trial_state_values(trial._trial_id, state, values)

    def _retry(self, active: Active) -> None:
        """Enqueue the parameters of a trial whose engine failed, as a new trial."""
        attrs = active.trial.user_attrs
        tries = int(attrs.get("tries", 0)) + 1
        if tries > MAX_RETRIES:
            return
        again = {"retry_of": active.trial.number, "tries": tries, "seed": active.config.seed}
        again |= {name: attrs[name] for name in FOLLOW_UP if name in attrs}
        self.study.enqueue_trial(active.record.params, user_attrs=again)
        active.trial.set_user_attr("replaced", "trained again after an engine failed")

    # ---- follow-up trials

    def enqueue_repeats(self, cap: int | None) -> bool:
        """Enqueue the next round of seed repeats; returns whether there is one.

        Args:
            cap: most seed repeats of a config, see `plan_repeats`.
        """
        with self._asking():
            trials = self.study.get_trials(deepcopy=False)
            planned = plan_repeats(trials, cap)
            for number in planned:
                self.study.enqueue_trial(trials[number].params, user_attrs={"repeat_of": number})
        return bool(planned)

    def enqueue_finish(self) -> bool:
        """If the best trial was pruned, enqueue it again with its seed, to train to its end.

        Returns whether it was.
        """
        with self._asking():
            trials = self.study.get_trials(deepcopy=False)
            best = unfinished_best(trials)
            if best is None:
                return False
            attrs = {"finishes": best.number, "seed": best.user_attrs["seed"]}
            self.study.enqueue_trial(best.params, user_attrs=attrs)
            return True
