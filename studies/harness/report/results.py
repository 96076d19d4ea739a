"""What a study found, as tables: the one place where reports read trials from Optuna."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial

from studies.harness.report.importance import importances
from studies.harness.store.trials import MEASURED, dev_loss, has_diverged, is_follow_up

if TYPE_CHECKING:
    import pandas as pd  # imported late: a study that has just begun does not need it

# Columns of a trial that stand before and after its parameters.
HEAD = ["trial", "state", "reason", "dev_loss", "train_loss"]
TAIL = [
    "best_step",
    "gap",
    "seconds",
    "n_params",
    "seed",
    "origin",
    "repeat_of",
    "finishes",
    "retry_of",
    "started",
    "ended",
]
POINTS = ["trial", "step", "train_loss", "dev_loss", "lr", "time"]


@dataclass(frozen=True)
class Results:
    """A study's ended trials, without those that another trial replaced.

    Attributes:
        trials: one row a trial that the sampler proposed or that was enqueued, lowest dev loss first; see
            `trials_frame`.
        repeats: the seed repeats, in the same columns; `repeat_of` is the trial whose config they share.
        points: one row an evaluation of either, by time: trial, step, train_loss, dev_loss, lr, time (seconds since
            the epoch).
        params: the names of the trials' parameters.
        space: the distributions of those that can take more than one value, in the order in which they were asked.
        base: the fields of Config that were not searched, among others.
        importances: share of each parameter in telling the best trials from the others; empty where there
            are too few trials.
    """

    name: str
    trials: pd.DataFrame
    repeats: pd.DataFrame
    points: pd.DataFrame
    params: list[str]
    space: dict[str, BaseDistribution]
    base: dict[str, Any]
    importances: dict[str, float]

    @property
    def measured(self) -> pd.DataFrame:
        """The trials that have a dev loss."""
        return self.trials[self.trials.dev_loss.notna()]

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that trained to their last step."""
        return self.trials[self.trials.state == "COMPLETE"]


def read_results(study: optuna.Study) -> Results:
    """Read everything a report needs, once."""
    trials = [
        t
        for t in study.get_trials(deepcopy=False)
        if t.state.is_finished() and "replaced" not in t.user_attrs
    ]
    frame = _frame(trials)
    repeated = frame.repeat_of.notna()
    space = _space(study, trials)
    searched = [t for t in trials if not is_follow_up(t)]
    return Results(
        name=study.study_name,
        trials=frame[~repeated].reset_index(drop=True),
        repeats=frame[repeated].reset_index(drop=True),
        points=points_frame(trials),
        params=list(dict.fromkeys(name for t in trials for name in t.params)),
        space=space,
        base=study.user_attrs.get("base", {}),
        importances=_importances(searched, space),
    )


def trials_frame(study: optuna.Study) -> pd.DataFrame:
    """One row a trial, lowest dev loss first, those without one last.

    Columns: trial, state, reason, dev_loss and train_loss (nats per character, at the best step), the searched
    parameters, best_step, gap (dev - train), seconds, n_params and what else was measured, seed, origin, repeat_of,
    finishes and retry_of (a trial number), started and ended (seconds since the epoch).
    """
    return _frame(study.get_trials(deepcopy=False))


def _frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    import pandas as pd

    rows = []
    for trial in trials:
        attrs = trial.user_attrs
        summary = attrs.get("summary", {})
        dev, train = dev_loss(trial), summary.get("train_loss")
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name,
                "reason": summary.get("reason", attrs.get("replaced", "")),
                "dev_loss": dev,
                "train_loss": train,
                **trial.params,
                "best_step": summary.get("best_step"),
                "gap": None if dev is None or train is None else dev - train,
                **summary.get("metrics", {}),
                **{
                    name: attrs.get(name)
                    for name in ("seed", "origin", "repeat_of", "finishes", "retry_of")
                },
                **{name: summary.get(name) for name in ("started", "ended")},
            }
        )
    params = list(dict.fromkeys(name for trial in trials for name in trial.params))
    extra = list(
        dict.fromkeys(key for row in rows for key in row if key not in {*HEAD, *TAIL, *params})
    )
    at = TAIL.index("seed")
    frame = pd.DataFrame(rows, columns=[*HEAD, *params, *TAIL[:at], *extra, *TAIL[at:]])
    numbers = [
        "dev_loss",
        "train_loss",
        "gap",
        "best_step",
        "seconds",
        "n_params",
        "started",
        "ended",
    ]
    frame[numbers] = frame[numbers].astype(
        float
    )  # None becomes NaN, also in a column that holds nothing else
    for name in ("repeat_of", "finishes", "retry_of", "best_step", "n_params"):
        frame[name] = frame[name].astype(float).astype("Int64")
    return frame.sort_values(["dev_loss", "trial"], ignore_index=True)


def points_frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """One row an evaluation, by time."""
    import pandas as pd

    rows = [
        [t.number, *row]
        for t in trials
        for row in t.user_attrs.get("summary", {}).get("history", [])
    ]
    frame = pd.DataFrame(rows, columns=POINTS).astype(
        {"trial": int, "step": int, **dict.fromkeys(POINTS[2:], float)}
    )
    return frame.sort_values(["time", "trial", "step"], ignore_index=True)


def _space(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    asked = {name: d for trial in trials for name, d in trial.distributions.items()}
    stored = {
        name: json_to_distribution(text) for name, text in study.user_attrs.get("space", {}).items()
    }
    space = {**asked, **stored}
    return {name: d for name, d in space.items() if not d.single()}


def _importances(
    trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]
) -> dict[str, float]:
    ended = [t for t in trials if t.state in MEASURED]
    everywhere = {name: d for name, d in space.items() if all(name in t.params for t in ended)}
    losses = [math.inf if has_diverged(t) else dev_loss(t) or math.inf for t in ended]
    return importances(losses, [t.params for t in ended], everywhere)
