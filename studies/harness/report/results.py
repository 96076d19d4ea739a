"""Trials, evaluations and search space of a study as tables. Reports read Optuna only here."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import optuna
from optuna.distributions import BaseDistribution, json_to_distribution
from optuna.trial import FrozenTrial

from makemore.errors import UserError
from studies.harness.report.importance import importances
from studies.harness.report.thinned import BEST, MAX_POINTS, thin
from studies.harness.store.study import model_name
from studies.harness.store.trials import (
    MEASURED,
    dev_loss,
    has_diverged,
    is_follow_up,
    minibatch_loss,
)
from studies.harness.store.winner import CONFIRMED
from studies.harness.store.winner.noise import Noise, confirmed_means, measure_noise
from studies.harness.store.winner.race import open_repeats_sentence
from studies.harness.store.winner.winner import Winner, choose_winner

if TYPE_CHECKING:
    import pandas as pd  # imported late: a study that starts does not need it

# Columns before and after the searched parameters; measurements come between SUMMARY and MARKS.
HEAD = ["trial", "state", "reason", "dev_loss", "minibatch_loss"]
SUMMARY = ["best_step", "seconds", "n_params"]
MARKS = ["seed", "origin", "repeat_of", "finishes", "retry_of", "audited"]
FACTS = ("script", "data", "model")
MEASURED_AT_END = ["diverged_step", "init_loss", "tanh_saturation"]
CLOCK = ["started", "ended"]
POINTS = ["trial", "step", "minibatch_loss", "dev_loss", "lr", "time"]

FLOATS = ["dev_loss", "minibatch_loss", *SUMMARY, *CLOCK]
INTEGERS = ["repeat_of", "finishes", "retry_of", "audited", "best_step", "n_params"]


@dataclass(frozen=True)
class Results:
    """Finished trials of a study, without those that another trial replaced.

    Attributes:
        name: of the study.
        trials: one row for each trial of the search and each trial that finishes a pruned one,
            lowest dev loss first; columns as in `trials_frame`.
        repeats: the seed repeats, with the same columns; `repeat_of` is the repeated trial.
        points: one row for each evaluation of both, ordered by time: trial, step, minibatch_loss
            and dev_loss (nats per character), lr, time (seconds since the epoch).
        params: names of the trials' parameters.
        space: distributions of the parameters that can take more than one value, in the order in
            which they were suggested.
        base: the fixed fields of Config.
        facts: of the study, as the study stores them, each optional: script (relative to the
            project), data (name of the file of words) and model (FILE.py:CLASS of a user's model).
        importances: PED-ANOVA importance of each parameter, sums to 1; empty for too few trials.
        noise: the seed repeats by trial, and the noise between seeds; None without repeats.
        winner: the best config; None if no trial has a dev loss.
        open_repeats: a sentence if seed repeats are left, otherwise empty.
    """

    name: str
    trials: pd.DataFrame
    repeats: pd.DataFrame
    points: pd.DataFrame
    params: list[str]
    space: dict[str, BaseDistribution]
    base: dict[str, Any]
    facts: dict[str, str]
    importances: dict[str, float]
    noise: Noise | None
    winner: Winner | None
    open_repeats: str = ""

    @property
    def measured(self) -> pd.DataFrame:
        """The trials that have a dev loss."""
        return self.trials[self.trials.dev_loss.notna()]

    @property
    def complete(self) -> pd.DataFrame:
        """The trials that trained to their last step."""
        return self.trials[self.trials.state == "COMPLETE"]

    @property
    def model_note(self) -> str:
        """ ", model NAME" for a user's model, and "" for the MLP."""
        source = self.facts.get("model")
        return "" if source is None else f", model {model_name(source)}"

    def drawn(self, most: int = MAX_POINTS) -> pd.DataFrame:
        """The trials that a figure draws one by one, at most about `most`; see `thin`."""
        winner = [] if self.winner is None else [self.winner.number]
        return thin(self.trials, most, keep={*winner, *self.repeats.repeat_of})

    def which_drawn(self, most: int = MAX_POINTS) -> str:
        """The drawn trials, for a title: "each trial", or "2,000 of 10,000 trials"."""
        if len(self.trials) <= most:
            return "each trial"
        return f"{len(self.drawn(most)):,} of {len(self.trials):,} trials"

    def drawn_note(self, most: int = MAX_POINTS) -> str:
        """A sentence that says which trials are drawn; empty if all are."""
        if len(self.trials) <= most:
            return ""
        which = f"the best {int(BEST * most)}, and a random sample of the others"
        return f"{self.which_drawn(most)} are drawn: {which}."


def check_names(fields: Collection[str]) -> None:
    """Refuse config fields of a user's model that have the name of a column or of a setting.

    Raises:
        UserError: names the field.
    """
    taken = {
        *HEAD,
        *SUMMARY,
        *MARKS,
        *CLOCK,
        *POINTS,
        *CONFIRMED,
        *MEASURED_AT_END,
        *FACTS,
        "study",
    }
    for name in sorted(taken.intersection(fields)):
        raise UserError(
            f"a config field cannot be called {name}, a column of the results; rename it."
        )


def read_results(study: optuna.Study) -> Results:
    """Read everything that a report needs, once."""
    stored = study.get_trials(deepcopy=False)
    trials = [t for t in stored if t.state.is_finished() and "replaced" not in t.user_attrs]
    frame = _frame(trials)
    is_repeat = frame.repeat_of.notna()
    space = _space(study, trials)
    searched = [trial for trial in trials if not is_follow_up(trial)]
    noise = measure_noise(stored)
    return Results(
        name=study.study_name,
        trials=frame[~is_repeat].reset_index(drop=True),
        repeats=frame[is_repeat].reset_index(drop=True),
        points=points_frame(trials),
        params=_param_names(trials),
        space=space,
        base=study.user_attrs.get("base", {}),
        facts={key: study.user_attrs[key] for key in FACTS if study.user_attrs.get(key)},
        importances=_importances(searched, space),
        noise=noise,
        winner=choose_winner(stored, noise),
        open_repeats=open_repeats_sentence(stored),
    )


def trials_frame(study: optuna.Study) -> pd.DataFrame:
    """Return one row for each trial: the winner, the other trials, then the seed repeats.

    The trials and the repeats are each sorted by dev loss, those without a dev loss last.

    Columns: trial, state, reason, dev_loss (nats per character), confirmed_dev_loss (mean of the
    seed repeats), confirmed_ci (half of its 95% interval), confirmed_n (number of repeats),
    minibatch_loss (at the best step), the searched parameters, best_step, seconds, n_params,
    further measurements, seed, origin, repeat_of, finishes and retry_of (trial numbers), audited
    (step at which the pruner would have stopped the trial), started and ended (seconds since the
    epoch).
    """
    trials = study.get_trials(deepcopy=False)
    frame = _frame(trials)
    noise = measure_noise(trials)
    groups = {group.trial: group for group in noise.groups} if noise else {}
    means = [confirmed_means(groups.get(number)) for number in frame.trial]
    for column, name in enumerate(CONFIRMED, start=list(frame.columns).index("dev_loss") + 1):
        frame.insert(column, name, [mean.get(name, math.nan) for mean in means])
    winner = choose_winner(trials, noise)
    first = None if winner is None else winner.number
    # 0 for the winner, 1 for the other trials, 2 for the repeats.
    place = (frame.trial != first).astype(int) + frame.repeat_of.notna()
    return frame.loc[place.sort_values(kind="stable").index].reset_index(drop=True)


def points_frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    """Return one row for each evaluation, ordered by time; columns POINTS."""
    import pandas as pd

    rows = [
        [trial.number, *row]
        for trial in trials
        for row in trial.user_attrs.get("summary", {}).get("history", [])
    ]
    types: dict[str, type] = {"trial": int, "step": int, **dict.fromkeys(POINTS[2:], float)}
    frame = pd.DataFrame(rows, columns=POINTS).astype(types)
    return frame.sort_values(["time", "trial", "step"], ignore_index=True)


def _frame(trials: Sequence[FrozenTrial]) -> pd.DataFrame:
    import pandas as pd

    rows = [_row(trial) for trial in trials]
    params = _param_names(trials)
    known = {*HEAD, *params, *SUMMARY, *MARKS, *CLOCK}
    measurements = list(dict.fromkeys(key for row in rows for key in row if key not in known))
    columns = [*HEAD, *params, *SUMMARY, *measurements, *MARKS, *CLOCK]

    frame = pd.DataFrame(rows, columns=columns)
    # None becomes NaN, even in a column without any number.
    frame[FLOATS] = frame[FLOATS].astype(float)
    for name in INTEGERS:
        frame[name] = frame[name].astype(float).astype("Int64")
    return frame.sort_values(["dev_loss", "trial"], ignore_index=True)


def _row(trial: FrozenTrial) -> dict[str, Any]:
    attrs = trial.user_attrs
    summary = attrs.get("summary", {})
    dev = dev_loss(trial)
    return {
        "trial": trial.number,
        "state": trial.state.name,
        "reason": summary.get("reason", attrs.get("replaced", "")),
        "dev_loss": dev,
        "minibatch_loss": minibatch_loss(trial),
        **trial.params,
        "best_step": summary.get("best_step"),
        **summary.get("metrics", {}),
        **{name: attrs.get(name) for name in MARKS},
        **{name: summary.get(name) for name in CLOCK},
    }


def _param_names(trials: Sequence[FrozenTrial]) -> list[str]:
    return list(dict.fromkeys(name for trial in trials for name in trial.params))


def _space(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
    suggested = {name: d for trial in trials for name, d in trial.distributions.items()}
    texts = study.user_attrs.get("space", {})
    stored = {name: json_to_distribution(text) for name, text in texts.items()}
    return {name: d for name, d in {**suggested, **stored}.items() if not d.single()}


def _importances(
    trials: Sequence[FrozenTrial], space: dict[str, BaseDistribution]
) -> dict[str, float]:
    measured = [trial for trial in trials if trial.state in MEASURED]
    # Parameters that some trial lacks are left out.
    common = {
        name: d for name, d in space.items() if all(name in trial.params for trial in measured)
    }
    losses = [
        math.inf if has_diverged(trial) else dev_loss(trial) or math.inf for trial in measured
    ]
    return importances(losses, [trial.params for trial in measured], common)
