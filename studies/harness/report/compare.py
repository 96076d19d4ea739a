"""Compare the trials of one study, or several studies, as tables for the terminal."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import optuna
import pandas as pd
from optuna.trial import TrialState
from rich import box
from rich.console import Console
from rich.table import Table

from studies.harness.cli.terminal import say, trials_table
from studies.harness.report.best_so_far import best_at, best_so_far
from studies.harness.report.results import Results, read_results
from studies.harness.store.launches import is_alive, lease_of
from studies.harness.store.study import format_range
from studies.harness.store.text import counted
from studies.harness.store.winner.noise import measure_noise
from studies.harness.store.winner.race import open_repeats_sentence
from studies.harness.store.winner.winner import Winner, describe

SHARES = (0.1, 0.25, 0.5, 1.0)  # of the training steps that all compared studies have

# ---- trials of one study


def searched_trials(study: optuna.Study, frame: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of `trials_frame` without seed repeats and trials that were replaced."""
    trials = study.get_trials(deepcopy=False)
    hidden = {"replaced", "repeat_of"}
    return frame.loc[[not hidden & trials[number].user_attrs.keys() for number in frame.trial]]


def count_states(rows: pd.DataFrame) -> dict[str, int]:
    """Return the number of trials in each state: complete, pruned, failed, running, waiting."""
    states = rows.state.str.lower().replace("fail", "failed")
    return {str(state): int(n) for state, n in states.value_counts().items()}


def count_stopped(study: optuna.Study) -> int:
    """Return how many running trials belong to launches that have ended, for example by a kill."""
    running = [t for t in study.get_trials(deepcopy=False) if t.state == TrialState.RUNNING]
    launches = {trial.user_attrs.get("launch") for trial in running}
    dead = {launch for launch in launches if not is_alive(lease_of(study, launch))}
    return sum(trial.user_attrs.get("launch") in dead for trial in running)


def print_trials(
    console: Console, study: optuna.Study, rows: pd.DataFrame, top: int, *, markdown: bool = False
) -> None:
    """Print the first `top` rows of `searched_trials`, as a table or as Markdown."""
    shown = rows[:top]
    if not len(shown):
        return
    order = "the winner first, then by dev loss"
    heading = f"{len(shown)} of {counted(len(rows), 'trial')} of study {study.study_name}, {order}:"
    say(console, heading, "bold")
    if markdown:
        cells = shown.drop(columns=["started", "ended"]).round(4).astype(object)
        table = cells.where(shown.notna(), "").set_index("trial")
        print(to_markdown(table, "trial"), file=console.file)
        return
    trials = study.get_trials(deepcopy=False)
    chosen = [trials[number] for number in shown.trial]
    console.print(trials_table(chosen, console.width, measure_noise(trials)))


def print_summary(
    console: Console, study: optuna.Study, states: dict[str, int], winner: Winner | None
) -> None:
    """Print the number of trials in each state, and the winner."""
    counts = ", ".join(f"{n} {state}" for state, n in states.items())
    say(console, counts or f"Study {study.study_name} has no trials yet.")
    if n_stopped := count_stopped(study):
        say(
            console,
            f"The launch of {counted(n_stopped, 'running trial')} has ended; the study's next "
            "launch trains them again.",
        )
    for sentence in describe(winner) if winner else ():
        say(console, sentence)
    if sentence := open_repeats_sentence(study.get_trials(deepcopy=False)):
        say(console, sentence)


# ---- several studies


def compare_studies(studies: Sequence[optuna.Study]) -> pd.DataFrame:
    """Compare several studies: one row for each measure or setting, one column for each study.

    The best dev loss so far is compared at equal numbers of training steps, summed over trials:
    at shares of the steps of the study that trained least. Only settings that differ are listed.

    Returns:
        Strings; the index names the measures and settings, the columns name the studies.
    """
    results = [read_results(study) for study in studies]
    curves = [best_so_far(result.trials, result.points) for result in results]
    complete = [result.complete for result in results]
    rows = {
        "trials": [str(len(result.trials)) for result in results],
        "complete": [str(len(trials)) for trials in complete],
        "winner": [_winner(result) for result in results],
        "confirmed dev_loss": [_confirmed(result) for result in results],
        "lowest dev_loss of one seed": [
            _loss(result.measured.dev_loss.min()) for result in results
        ],
        "ensemble dev_loss": [_ensemble(study) for study in studies],
        "median dev_loss of complete": [_loss(trials.dev_loss.median()) for trials in complete],
        "training steps": [_last(curve, "steps", ",.0f") for curve in curves],
        "seconds of search": [_last(curve, "seconds", ".1f") for curve in curves],
    }
    least = min((float(curve.steps.iloc[-1]) for curve in curves if len(curve)), default=0.0)
    for share in SHARES if least else ():
        steps = round(share * least)
        losses = [_loss(best_at(curve, "steps", steps)) for curve in curves]
        rows[f"best after {steps:,} steps"] = losses
    for label, values in _settings(studies, results).items():
        if len(set(values)) > 1:
            rows[label] = values
    names = [study.study_name for study in studies]
    return pd.DataFrame.from_dict(rows, orient="index", columns=names)


def print_studies(console: Console, frame: pd.DataFrame, *, markdown: bool = False) -> None:
    """Print the table of `compare_studies`, as a table or as Markdown."""
    if markdown:
        text = to_markdown(frame, "measure")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    table = Table("", *frame.columns, box=box.SIMPLE_HEAD)
    for index, row in zip(frame.index, frame.to_numpy(), strict=True):
        table.add_row(str(index), *row)
    console.print(table)


def to_markdown(frame: pd.DataFrame, corner: str) -> str:
    """Return a table as Markdown; its index is the first column, with the heading `corner`."""
    lines = [[corner, *map(str, frame.columns)], ["---"] * (len(frame.columns) + 1)]
    for index, row in zip(frame.index, frame.to_numpy(), strict=True):
        lines.append([str(index), *map(str, row)])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _settings(studies: Sequence[optuna.Study], results: Sequence[Results]) -> dict[str, list[str]]:
    """Return data, seed, base config, ranges and best config, each with a value for each study."""
    attrs = [study.user_attrs for study in studies]
    bases = [attr.get("base", {}) for attr in attrs]
    spaces = [attr.get("space", {}) for attr in attrs]
    found = {key: [str(attr.get(key, "-")) for attr in attrs] for key in ("data", "seed")}
    for key in dict.fromkeys(key for base in bases for key in base):
        found[f"base {key}"] = [str(base.get(key, "-")) for base in bases]
    for key in dict.fromkeys(key for space in spaces for key in space):
        found[f"range of {key}"] = [format_range(space.get(key, "fixed")) for space in spaces]
    for key in dict.fromkeys(name for result in results for name in result.params):
        found[f"best {key}"] = [_best_value(result, key) for result in results]
    return found


def _winner(result: Results) -> str:
    return f"trial {result.winner.number}" if result.winner else "-"


def _confirmed(result: Results) -> str:
    return result.winner.loss_text if result.winner and result.winner.group else "-"


def _ensemble(study: optuna.Study) -> str:
    """Return the cross-fitted dev loss of an ensemble of the study's models, as its end stored."""
    stored = study.user_attrs.get("ensemble")
    return _loss(stored["dev_loss"]) if stored else "-"


def _best_value(result: Results, key: str) -> str:
    value = result.winner.trial.params.get(key) if result.winner else None
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _last(curve: pd.DataFrame, axis: str, spec: str) -> str:
    return format(curve[axis].iloc[-1], spec) if len(curve) else "0"


def _loss(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
