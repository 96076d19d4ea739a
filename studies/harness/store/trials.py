"""Trials: the record of a training, how it is stored in Optuna, and which trials count or rank."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config, StoredConfig, parse_config
from makemore.errors import UserError

if TYPE_CHECKING:
    from makemore.engines import EvalPoint

# Trials in these states have a dev loss.
MEASURED = (TrialState.COMPLETE, TrialState.PRUNED)
OUT_OF_MEMORY = "out of memory"  # the reason of a trial whose model did not fit
# A follow-up trial has one of these user attributes: a seed repeat, or the rest of a pruned trial.
FOLLOW_UP = frozenset({"repeat_of", "finishes"})


@dataclass
class TrialRecord:
    """Everything known about one trial, from its start on.

    Attributes:
        number: Optuna's trial number.
        config: the config that the trial trains.
        params: the searched parameters.
        started: start of the training, in seconds since the epoch.
        tags: labels in both stores: launch, retry_of, repeat_of, finishes, origin, audited.
        points: evaluations so far.
        times: time of each evaluation, in seconds since the epoch.
        state: RUNNING, then COMPLETE, PRUNED or FAIL, or INTERRUPTED if the trial was requeued.
        reason: why the trial ended: finished, pruned, diverged at step N, out of memory,
            interrupted, out of time, or the error of an engine.
        metrics: single numbers known at the end: seconds, n_params, and the diagnostics.
        ended: end of the training, in seconds since the epoch.
        has_model: a checkpoint was written; it is dropped later if enough trials are better.
    """

    number: int
    config: Config
    params: dict[str, Any]
    started: float
    tags: dict[str, str] = field(default_factory=dict)
    points: list[EvalPoint] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    state: str = "RUNNING"
    reason: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    ended: float | None = None
    has_model: bool = False

    @property
    def best(self) -> EvalPoint | None:
        """The evaluation with the lowest dev loss, or None before the first evaluation."""
        return min(self.points, key=lambda point: point.dev_loss, default=None)

    def summary(self) -> dict[str, Any]:
        """Return what Optuna stores of the trial besides its parameters and state, as JSON."""
        best = self.best
        return {
            "reason": self.reason,
            "best_step": best.step if best else None,
            "dev_loss": best.dev_loss if best else None,
            "history": [
                [p.step, p.minibatch_loss, p.dev_loss, p.lr, at]
                for p, at in zip(self.points, self.times, strict=True)
            ],
            "metrics": self.metrics,
            "has_model": self.has_model,
            "started": self.started,
            "ended": self.ended,
        }


def trial_seed(study_seed: int, number: int) -> int:
    """Return the seed of a trial: different for each trial, the same each time it is trained."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def sampler_seed(study_seed: int, number: int) -> int:
    """Return the seed of the sampler for a trial; independent of all trials' seeds."""
    return int(np.random.SeedSequence([study_seed, number, 1]).generate_state(1)[0])


def trial_config(study: optuna.Study, trial: FrozenTrial) -> Config:
    """Return the config that a trial trained.

    Raises:
        UserError: another program created the study.
    """
    base = study.user_attrs.get("base")
    if base is None or "seed" not in trial.user_attrs:
        raise UserError(
            f"study {study.study_name!r}: trial {trial.number} was not made by these study "
            "scripts; name a study that was."
        )
    values = {**base, **trial.params, "seed": trial.user_attrs["seed"]}
    # The fields of a user's model were validated when the trial was trained.
    config_class = Config if study.user_attrs.get("model") is None else StoredConfig
    return parse_config(values, f"trial {trial.number}", config_class)


def restore_record(study: optuna.Study, trial: FrozenTrial) -> TrialRecord:
    """Return the record of a finished trial, from what Optuna stores."""
    from makemore.engines import EvalPoint  # loads torch, which takes seconds

    summary = trial.user_attrs.get("summary", {})
    history = summary.get("history", [])
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    ended = trial.datetime_complete.timestamp() if trial.datetime_complete else started
    return TrialRecord(
        number=trial.number,
        config=trial_config(study, trial),
        params=dict(trial.params),
        started=summary.get("started", started),
        tags=trial_tags(trial),
        points=[EvalPoint(*row[:4]) for row in history],
        times=[row[4] for row in history],
        state=trial.state.name,
        reason=summary.get("reason", trial.user_attrs.get("reason", "")),
        metrics=summary.get("metrics", {}),
        ended=summary.get("ended", ended),
        has_model=summary.get("has_model", False),
    )


def trial_tags(trial: FrozenTrial) -> dict[str, str]:
    """Return the labels of a trial that both stores hold."""
    names = ("launch", "retry_of", "repeat_of", "finishes", "origin", "audited")
    return {name: str(trial.user_attrs[name]) for name in names if name in trial.user_attrs}


def dev_loss(trial: FrozenTrial) -> float | None:
    """Return the lowest dev loss of a complete or pruned trial, or None if it has none."""
    if trial.state not in MEASURED:
        return None
    value = trial.user_attrs.get("summary", {}).get("dev_loss")
    return None if value is None else float(value)


def minibatch_loss(trial: FrozenTrial) -> float | None:
    """Return the minibatch loss at a trial's best step, or None if it has no evaluation."""
    summary = trial.user_attrs.get("summary", {})
    found = (row[1] for row in summary.get("history", []) if row[0] == summary.get("best_step"))
    return next(found, None)


def has_diverged(trial: FrozenTrial) -> bool:
    """Return whether a loss of the trial became infinite or NaN."""
    return _reason(trial).startswith("diverged")


def was_pruned_early(trial: FrozenTrial) -> bool:
    """Return whether the pruner stopped a trial, which could train further."""
    return trial.state == TrialState.PRUNED and not is_infeasible(_reason(trial))


def is_infeasible(reason: str) -> bool:
    """Return whether a trial ended because its config cannot train: it diverged or did not fit."""
    return reason.startswith(("diverged", OUT_OF_MEMORY))


def _reason(trial: FrozenTrial) -> str:
    return str(trial.user_attrs.get("summary", {}).get("reason", ""))


def is_follow_up(trial: FrozenTrial) -> bool:
    """Return whether a trial is a seed repeat, or finishes a pruned trial, after the search."""
    return not FOLLOW_UP.isdisjoint(trial.user_attrs)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """Return the trials that have a rank, lowest dev loss first."""
    keyed = [(key, trial) for trial in trials if (key := rank(trial)) is not None]
    return [trial for _, trial in sorted(keyed, key=itemgetter(0))]


def rank(trial: FrozenTrial) -> tuple[float, bool, int] | None:
    """Return the sort key of a trial by dev loss; None without a dev loss, and for a seed repeat.

    Of two equal losses, that of a complete trial comes first.
    """
    loss = dev_loss(trial)
    if loss is None or "repeat_of" in trial.user_attrs:
        return None
    return loss, trial.state != TrialState.COMPLETE, trial.number


def counts(trial: FrozenTrial) -> bool:
    """Running and finished trials count; follow-up and replaced trials do not."""
    if is_follow_up(trial) or "replaced" in trial.user_attrs:
        return False
    return trial.state != TrialState.WAITING
