"""Which trial is next: one that waits, or a new one from the sampler, until the study has its total."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Container
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from studies.harness.search.spaces import Space
from studies.harness.store.launches import Launch, requeue_dead
from studies.harness.store.locks import exclusive
from studies.harness.store.trials import (
    TrialRecord,
    counts,
    is_follow_up,
    ranked,
    repeats_trial,
    trial_seed,
    trial_tags,
    was_pruned_early,
)

LOOK_EVERY = 5.0  # seconds between two looks for trials of dead launches, once all others are begun
MAX_DUPLICATES = (
    20  # proposals in a row that were trained already, after which the space is taken for exhausted
)


@dataclass
class Active:
    """A trial that was asked, and is or will be trained."""

    trial: optuna.Trial
    config: Config
    record: TrialRecord
    seen_step: int  # the last step that an earlier, interrupted training of it reported


@dataclass
class TrialQueue:
    """Asks Optuna for trials.

    Args:
        total: trials that the study shall have in the end, those of earlier launches counted.
        make_sampler: seed -> sampler. Each trial is drawn by a sampler seeded by the study's seed and the trial's
            number, so that a study that was interrupted goes on as if it had not been.
    """

    study: optuna.Study
    space: Space
    base: Config
    launch: Launch
    total: int
    seed: int
    make_sampler: Callable[[int], BaseSampler]
    _looked: float = -math.inf  # when orphans were looked for
    exhausted: bool = False  # the sampler proposes nothing that was not trained already
    closed: bool = False  # only what is owed after the search is still to be trained

    def next(self) -> Active | None:
        """The next trial, or None when there is none to do. Never two trials of the same parameters, but repeats."""
        for _ in range(0 if self.exhausted else MAX_DUPLICATES):
            trial = self._claim()
            if trial is None:
                return None
            frozen = self.study.get_trials(deepcopy=False)[trial.number]
            seed = frozen.user_attrs.get("seed", trial_seed(self.seed, trial.number))
            self.study.sampler = _IgnoresFollowUps(
                self.make_sampler(trial_seed(self.seed + 1, trial.number))
            )
            config = self.space(trial, self.base).replace(seed=seed)
            duplicate = None if is_follow_up(frozen) else self._duplicate_of(trial)
            if duplicate is None:
                trial.set_user_attr("seed", seed)
                tags = {**trial_tags(frozen), "launch": self.launch.id}
                record = TrialRecord(trial.number, config, dict(trial.params), time.time(), tags)
                return Active(trial, config, record, max(frozen.intermediate_values, default=-1))
            trial.set_user_attr("replaced", f"the same parameters as trial {duplicate}")
            self.study.tell(trial, state=TrialState.FAIL)
        self.exhausted = True
        return None

    def _claim(self) -> optuna.Trial | None:
        """Take a waiting trial or make a new one, unless the total is reached; what is owed comes in any case."""
        with exclusive(f"ask-{self.study.study_name}"):
            trials = self.study.get_trials(deepcopy=False)
            follow_ups = [t for t in trials if t.state == TrialState.WAITING and is_follow_up(t)]
            if self.closed or sum(counts(t) for t in trials) >= self.total:
                if follow_ups:
                    return self._take(follow_ups[0])
                if self.closed or not self._find_orphans():
                    return None
            trial = self.study.ask()
            trial.set_user_attr("launch", self.launch.id)
            return trial

    def _take(self, waiting: FrozenTrial) -> optuna.Trial:
        """Take this trial, where `ask` would take the first that waits."""
        self.study._storage.set_trial_state_values(waiting._trial_id, TrialState.RUNNING)
        trial = optuna.Trial(self.study, waiting._trial_id)
        trial.set_user_attr("launch", self.launch.id)
        return trial

    @property
    def left(self) -> int:
        """How many trials the study lacks."""
        return self.total - sum(counts(t) for t in self.study.get_trials(deepcopy=False))

    def _find_orphans(self) -> bool:
        """Whether a launch beside this one died over its trials, which then wait; looked up every few seconds."""
        if time.monotonic() - self._looked < LOOK_EVERY:
            return False
        self._looked = time.monotonic()
        return bool(requeue_dead(self.study, exclude=self.launch.id))

    def enqueue_repeats(self, best: int, repeats: int) -> None:
        """Let the parameters of the `best` best trials be trained with further seeds, until each has `repeats`."""
        with exclusive(f"ask-{self.study.study_name}"):
            trials = self.study.get_trials(deepcopy=False)
            complete = [trial for trial in ranked(trials) if trial.state == TrialState.COMPLETE]
            for trial in complete[:best]:
                done = sum(repeats_trial(other, trial.number) for other in trials)
                for _ in range(done, repeats):
                    self.study.enqueue_trial(trial.params, user_attrs={"repeat_of": trial.number})

    def enqueue_finish(self) -> None:
        """Let the best trial be trained again, with its seed and to its end, if it was pruned."""
        with exclusive(f"ask-{self.study.study_name}"):
            trials = self.study.get_trials(deepcopy=False)
            best = next(iter(ranked(trials)), None)
            if best is None or not was_pruned_early(best):
                return
            again = {"finishes": best.number, "seed": best.user_attrs["seed"]}
            if not any(
                t.user_attrs.get("finishes") == best.number and "replaced" not in t.user_attrs
                for t in trials
            ):
                self.study.enqueue_trial(best.params, user_attrs=again)

    def _duplicate_of(self, trial: optuna.Trial) -> int | None:
        for other in self.study.get_trials(deepcopy=False):
            if other.number != trial.number and counts(other) and other.params == trial.params:
                return other.number
        return None


class _IgnoresFollowUps(BaseSampler):
    """A sampler that does not see what is owed after a search: it would count the best parameters several times."""

    def __init__(self, sampler: BaseSampler) -> None:
        self._sampler = sampler

    def infer_relative_search_space(
        self, study: optuna.Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        return self._sampler.infer_relative_search_space(_Searched(study), trial)

    def sample_relative(
        self, study: optuna.Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return self._sampler.sample_relative(_Searched(study), trial, search_space)

    def sample_independent(
        self,
        study: optuna.Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        return self._sampler.sample_independent(
            _Searched(study), trial, param_name, param_distribution
        )


class _Searched(optuna.Study):
    """A study without what is owed; Optuna's Hyperband filters a study in the same way."""

    def __init__(self, study: optuna.Study) -> None:
        self.__dict__.update(study.__dict__)

    def _get_trials(
        self,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
        use_cache: bool = False,
    ) -> list[FrozenTrial]:
        trials = super()._get_trials(deepcopy, states, use_cache)
        return [trial for trial in trials if not is_follow_up(trial)]
