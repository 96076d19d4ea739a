"""What is known of one trial: Optuna keeps it, the tracker projects it to MLflow, and reports read it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config, parse_config
from makemore.engines import EvalPoint
from makemore.errors import UserError

# States in which a trial has a dev loss that counts.
MEASURED = (TrialState.COMPLETE, TrialState.PRUNED)
# What marks a trial that is trained after the search, beyond its total.
FOLLOW_UP = frozenset({"repeat_of", "finishes"})


@dataclass
class TrialRecord:
    """One trial, from its admission on.

    Attributes:
        number: Optuna's trial number.
        params: the searched parameters.
        tags: what marks the trial: launch, retry_of, repeat_of, finishes, origin.
        started: seconds since the epoch.
        points: evaluations so far.
        times: when each was made, seconds since the epoch.
        state: RUNNING, then COMPLETE, PRUNED, FAIL, or INTERRUPTED when it was given back.
        reason: why it ended so: finished, pruned, diverged at step N, interrupted, out of time, or an engine's error.
        metrics: single numbers known at the end: seconds, n_params, and the diagnostics.
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

    @property
    def best(self) -> EvalPoint | None:
        """The evaluation of lowest dev loss, or None before the first."""
        return min(self.points, key=lambda point: point.dev_loss, default=None)

    def summary(self) -> dict[str, Any]:
        """What Optuna keeps of the trial beyond its parameters and its state, as JSON."""
        best = self.best
        return {
            "reason": self.reason,
            "best_step": best.step if best else None,
            "dev_loss": best.dev_loss if best else None,
            "train_loss": best.train_loss if best else None,
            "history": [
                [p.step, p.train_loss, p.dev_loss, p.lr, at]
                for p, at in zip(self.points, self.times, strict=True)
            ],
            "metrics": self.metrics,
            "started": self.started,
            "ended": self.ended,
        }


def trial_seed(study_seed: int, number: int) -> int:
    """The seed of a trial: another for each trial of a study, the same whenever that trial is trained."""
    return int(np.random.SeedSequence([study_seed, number]).generate_state(1)[0])


def trial_config(study: optuna.Study, trial: FrozenTrial) -> Config:
    """The config that a trial trained.

    Raises:
        UserError: the study was not made by this project.
    """
    base = study.user_attrs.get("base")
    if base is None or "seed" not in trial.user_attrs:
        raise UserError(
            f"study {study.study_name!r}: trial {trial.number} was not made by these study scripts."
        )
    return parse_config(
        {**base, **trial.params, "seed": trial.user_attrs["seed"]}, f"trial {trial.number}"
    )


def restore_record(study: optuna.Study, trial: FrozenTrial) -> TrialRecord:
    """The record of a finished trial, from what Optuna keeps."""
    summary = trial.user_attrs.get("summary", {})
    started = trial.datetime_start.timestamp() if trial.datetime_start else 0.0
    ended = trial.datetime_complete.timestamp() if trial.datetime_complete else started
    return TrialRecord(
        number=trial.number,
        config=trial_config(study, trial),
        params=dict(trial.params),
        started=summary.get("started", started),
        tags=trial_tags(trial),
        points=[EvalPoint(*row[:4]) for row in summary.get("history", [])],
        times=[row[4] for row in summary.get("history", [])],
        state=trial.state.name,
        reason=summary.get("reason", trial.user_attrs.get("reason", "")),
        metrics=summary.get("metrics", {}),
        ended=summary.get("ended", ended),
    )


def trial_tags(trial: FrozenTrial) -> dict[str, str]:
    """What marks a trial in both stores."""
    names = ("launch", "retry_of", "repeat_of", "finishes", "origin")
    return {name: str(trial.user_attrs[name]) for name in names if name in trial.user_attrs}


def dev_loss(trial: FrozenTrial) -> float | None:
    """The best dev loss that a trial reached, also of a pruned one; None when it was never evaluated."""
    if trial.state not in MEASURED:
        return None
    value = trial.user_attrs.get("summary", {}).get("dev_loss")
    return None if value is None else float(value)


def has_diverged(trial: FrozenTrial) -> bool:
    """Whether a loss of the trial was not finite."""
    return str(trial.user_attrs.get("summary", {}).get("reason", "")).startswith("diverged")


def was_pruned_early(trial: FrozenTrial) -> bool:
    """Whether the pruner ended the trial, which could go on."""
    return trial.state == TrialState.PRUNED and not has_diverged(trial)


def is_follow_up(trial: FrozenTrial) -> bool:
    """Whether a trial is trained after the search: a seed repeat of another, or another's way to its end."""
    return not FOLLOW_UP.isdisjoint(trial.user_attrs)


def ranked(trials: Sequence[FrozenTrial]) -> list[FrozenTrial]:
    """The measured trials, lowest dev loss first, of equals a complete one. Seed repeats are not among them."""
    measured = (t for t in trials if dev_loss(t) is not None and "repeat_of" not in t.user_attrs)
    return sorted(measured, key=lambda t: (dev_loss(t), t.state != TrialState.COMPLETE, t.number))


def counts(trial: FrozenTrial) -> bool:
    """Whether a trial counts towards the study's total: all do that run or ended, but owed and replaced ones."""
    if is_follow_up(trial) or "replaced" in trial.user_attrs:
        return False
    return trial.state != TrialState.WAITING


def repeats_trial(trial: FrozenTrial, number: int) -> bool:
    """Whether a trial is a seed repeat of another, which failed at most because it was replaced."""
    return trial.user_attrs.get("repeat_of") == number and "replaced" not in trial.user_attrs
