"""Text in the terminal: tables of trials, and the end of a study."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import optuna
from optuna.trial import FrozenTrial, TrialState
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from studies.harness.cli.commands import print_next, shell_command, store_flags
from studies.harness.store.text import counted
from studies.harness.store.trials import counts, dev_loss, ranked, was_pruned_early
from studies.harness.store.winner.noise import Group, Noise, measure_noise
from studies.harness.store.winner.race import open_repeats_sentence
from studies.harness.store.winner.winner import Winner, choose_winner, describe

if TYPE_CHECKING:
    from studies.harness.cli.args import StudyArgs

PIPE_WIDTH = 400  # columns without a terminal, so that nothing is cut or wrapped
N_BEST = 5  # trials in the table at the end


def make_console(*, stderr: bool = False) -> Console:
    """Return a console as wide as the terminal, or wide enough for every table in a pipe."""
    stream = sys.stderr if stderr else sys.stdout
    return Console(stderr=stderr, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def say(console: Console, sentence: str, style: str = "") -> None:
    """Print a sentence without reading its brackets as markup; a pipe gets it as one line."""
    console.print(sentence, style=style, markup=False, soft_wrap=True)


# ---- tables of trials


def trials_table(trials: list[FrozenTrial], width: int, noise: Noise | None = None) -> Table:
    """Return a table of trials with their searched parameters, in the order given.

    Args:
        width: columns of the terminal; if the table is wider, its headings are wrapped.
        noise: the seed repeats of the study; the column "confirmed" shows their means.
    """
    names = list(dict.fromkeys(name for trial in trials for name in trial.params))
    confirmed = {group.trial: group for group in noise.groups} if noise else {}
    rows = [_row(trial, names, confirmed if noise else None) for trial in trials]
    middle = ["confirmed"] if noise else []
    headings = ["trial", "dev_loss", *middle, *names, "best_step", "n_params", "state"]
    natural = sum(max(map(len, cells)) + 2 for cells in zip(headings, *rows, strict=True))
    fits = natural <= width

    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.padding = (0, 1 if fits else 0, 0, 0)
    for heading in headings:
        shown = heading if fits else heading.replace("_", "_\n")
        table.add_column(shown, justify="left" if heading == "state" else "right", overflow="fold")
    for row in rows:
        table.add_row(*map(Text, row))
    return table


def _row(
    trial: FrozenTrial, names: Sequence[str], confirmed: Mapping[int, Group] | None
) -> list[str]:
    summary = trial.user_attrs.get("summary", {})
    losses = [_loss(dev_loss(trial))]
    if confirmed is not None:
        group = confirmed.get(trial.number)
        # These spaces do not break the cell into two lines.
        losses.append(group.mean_text.replace(" ", "\N{NO-BREAK SPACE}") if group else "")
    params = [_cell(trial.params.get(name)) for name in names]
    sizes = [_cell(summary.get("best_step")), _cell(summary.get("metrics", {}).get("n_params"))]
    return [str(trial.number), *losses, *params, *sizes, _state(trial)]


def _loss(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _cell(value: Any) -> str:
    if value is None:
        return "-"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _state(trial: FrozenTrial) -> str:
    """Return the state, the label of a follow-up trial, and the reason if it says more."""
    attrs = trial.user_attrs
    state = "failed" if trial.state == TrialState.FAIL else trial.state.name.lower()
    reason = attrs.get("summary", {}).get("reason") or attrs.get("replaced", "")

    label = ""
    if "finishes" in attrs:
        label = f" (finishes {attrs['finishes']})"
    elif "repeat_of" in attrs:
        label = f" (seed repeat of {attrs['repeat_of']})"
    return f"{state}{label}" if reason in ("", "finished", state) else f"{state}{label}: {reason}"


# ---- the end of a study


def print_end(args: StudyArgs, study: optuna.Study, outcome: dict[str, Any]) -> None:
    """Print the best trials, the counts, the report's path and the next commands.

    With --json it prints to standard error, because the JSON object is the only line of standard
    output.

    Args:
        outcome: the object that --json prints.
    """
    console = make_console(stderr=args.json)
    trials = study.get_trials(deepcopy=False)
    noise = measure_noise(trials)
    winner = choose_winner(trials, noise)
    best = winner_first(trials, winner)[:N_BEST]
    if winner:
        n_trials = counted(outcome["trials"], "trial")
        say(console, f"Best {len(best)} of {n_trials} of study {args.study}:", "bold")
        console.print(trials_table(best, console.width, noise))
        for sentence in [*describe(winner), *_explain_numbers(best, trials, outcome["trials"])]:
            say(console, sentence)
    for sentence in [*_counts(args, outcome), *_how_to_continue(args, best, outcome)]:
        say(console, sentence)
    if sentence := open_repeats_sentence(trials):
        say(console, f"{sentence} Run the same command again to continue.")
    if outcome["report"]:
        say(console, f"Report: {outcome['report']}")
    if best:
        view = [args.study, *store_flags(args, storage=False)]
        export = [args.study, *store_flags(args)]
        print_next(
            console,
            ("compare the trials in the MLflow UI", "studies/ui.py", view),
            ("export the winner", "experiments/export.py", export),
        )


def winner_first(trials: Sequence[FrozenTrial], winner: Winner | None) -> list[FrozenTrial]:
    """Return the winner, then the other trials that have a dev loss, lowest first."""
    if winner is None:
        return []
    return [winner.trial, *(t for t in ranked(trials) if t.number != winner.number)]


def _explain_numbers(
    shown: Sequence[FrozenTrial], trials: Sequence[FrozenTrial], total: int
) -> list[str]:
    """Return a sentence if a shown trial has a number that exceeds the number of trials."""
    highest = max(trial.number for trial in shown)
    if highest < total:
        return []
    repeats = sum("repeat_of" in t.user_attrs for t in trials[:highest])
    others = sum(not counts(t) for t in trials[:highest]) - repeats
    kinds = []
    if repeats:
        kinds.append(counted(repeats, "seed repeat"))
    if others:
        kinds.append(counted(others, "other uncounted trial"))
    came_before = " and ".join(kinds)
    return [f"Trial {highest} has a number above {total - 1}: {came_before} came before it."]


def _counts(args: StudyArgs, outcome: dict[str, Any]) -> list[str]:
    """Return the sentences about this launch: its counts and its time."""
    if not outcome["ended_now"] and outcome["trials"] >= args.trials:
        return [
            f"Study {args.study} already has {counted(outcome['trials'], 'trial')}; give a larger "
            "--trials to continue it."
        ]
    n_diverged = outcome["diverged"]
    diverged = f" ({n_diverged} of them diverged)" if n_diverged else ""
    slots = outcome["slots"]
    busy = min(1.0, outcome["train_s"] / max(1e-9, slots * outcome["wall_s"]))
    return [
        f"{outcome['complete']} complete, {outcome['pruned']} pruned{diverged}, "
        f"{outcome['failed']} failed.",
        f"{outcome['wall_s']:.1f} s on the clock; {counted(slots, 'slot')} trained "
        f"for {outcome['train_s']:.1f} s in total ({busy:.0%} busy).",
    ]


def _how_to_continue(
    args: StudyArgs, best: Sequence[FrozenTrial], outcome: dict[str, Any]
) -> list[str]:
    """Return the sentences about work that is left, each with the command that continues it."""
    sentences = []
    n_trials = outcome["trials"]
    if n_trials < args.trials:
        end = f"Stopped at {n_trials} of {counted(args.trials, 'trial')}"
        if outcome["timed_out"]:
            limit = f"The time limit of {args.minutes:g} minutes"
            end = f"{limit} ended the search after {counted(n_trials, 'trial')}"
        sentences.append(f"{end}; run the same command again to continue.")
    if best and was_pruned_early(best[0]):
        step = best[0].user_attrs["summary"]["history"][-1][0]
        sentences.append(
            f"The best trial was pruned at step {step:,}; the same command with --trials "
            f"{n_trials} --finish-best trains it to its end."
        )
    return sentences


def print_not_sent(args: StudyArgs, left: int, error: str) -> None:
    """Print how many runs MLflow does not have, and the command that sends them.

    Args:
        left: number of runs.
        error: last error of MLflow, in one line; may be empty.
    """
    command = shell_command("studies/doctor.py", [args.study, *store_flags(args), "--repair"])
    print(
        f"MLflow does not have {left} runs of this study; they are in mlruns/outbox "
        f"({error or 'no answer'}).\nSend them when MLflow is available again: {command}",
        file=sys.stderr,
    )
