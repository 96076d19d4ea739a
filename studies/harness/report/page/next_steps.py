"""What to do after a search: sentences with commands, the most useful first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from studies.harness.cli.commands import search_call, shell_command
from studies.harness.report.judge.findings import Findings
from studies.harness.report.judge.pruning import AUDIT_MORE
from studies.harness.report.judge.ranges import MIN_MEASURED
from studies.harness.store.text import without_password

MORE_REPEATS = 8  # seed repeats proposed for tied configs
MIN_TRIALS = 32  # suggested to a study with too few trials for a verdict
# Added to the study's name, for the new study of a step.
WIDE, LONGER, SHORTER, UNPRUNED = SUFFIXES = ("-wide", "-longer", "-shorter", "-unpruned")
REPLACED = ("--steps", "--repeats", "--audit-pruning")  # flags that a proposed command may change


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        sentence: what to do.
        command: a shell command or a Python line that does it; empty if there is none.
        reason: why, if the sentence does not say it.
    """

    sentence: str
    command: str = ""
    reason: str = ""


def next_steps(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """Return what to do next, from the verdicts.

    Args:
        findings: the verdicts on the study.
        context: facts that the study does not hold, each optional: script (the study's script,
            relative to the project), flags (further arguments of its command line, such as --names
            and the stores), store_flags (arguments with which other scripts find the stores),
            retrain_flags (arguments with which the retraining finds the words and MLflow),
            new_names (for each of SUFFIXES, the name of the study that a step proposes).
    """
    if findings.best is None:
        return [_no_loss(findings)]
    if len(findings.results.measured) < MIN_MEASURED:
        search = [_too_few(findings, context)]
    else:
        search = [
            *_end_repeats(findings, context),
            *_confirm_winner(findings, context),
            *_finish_best(findings, context),
            *_widen_ranges(findings, context),
            *_change_steps(findings, context),
            *_prune_less(findings, context),
            *_add_trials(findings, context),
            *_separate_ties(findings, context),
        ]
    return [*search, _export(findings, context), _retrain(findings, context)]


def _command(script: str, arguments: list[str]) -> str:
    """Return a shell command without the password of a storage URL: others may read the page."""
    return shell_command(script, [without_password(argument) for argument in arguments])


def _launch(findings: Findings, context: dict[str, Any], *arguments: str, suffix: str = "") -> str:
    """Return the command of another launch; a Python line if the study has no script.

    Args:
        findings: the verdicts on the study.
        context: see `next_steps`.
        arguments: added to the flags; those in REPLACED, and a --range of the same parameter, take
            the place of the same flag.
        suffix: one of SUFFIXES for a new study.
    """
    flags = [*_without_replaced(context.get("flags", []), arguments), *arguments]
    study = findings.results.name
    if suffix:
        study = context.get("new_names", {}).get(suffix, study + suffix)
    if "script" in context:
        return _command(context["script"], ["--study", study, *flags])
    model = findings.results.facts.get("model")
    return search_call(study, [without_password(flag) for flag in flags], model)


def _without_replaced(flags: Sequence[str], arguments: Sequence[str]) -> list[str]:
    """Return the flags without those that the arguments replace, see `_launch`."""
    given = {value.partition("=")[0] for flag, value in pairwise(arguments) if flag == "--range"}
    kept: list[str] = []
    words = iter(flags)
    for word in words:
        if word in REPLACED and word in arguments:
            next(words, None)
        elif word == "--range":
            value = next(words, "")
            kept += [] if value.partition("=")[0] in given else [word, value]
        else:
            kept.append(word)
    return kept


def _n_trials(findings: Findings) -> int:
    """Return the number of trials that --trials counts: those that finish another do not."""
    return int(findings.results.trials.finishes.isna().sum())


# ---- the search


def _no_loss(findings: Findings) -> Step:
    n = _n_trials(findings)
    all_diverged = n > 0 and findings.outcomes.get("diverged") == n
    why = "No trial has a dev loss" + (": all diverged" if all_diverged else "")
    return Step(f"{why}. Lower the range of lr, then start a study with another name.")


def _too_few(findings: Findings, context: dict[str, Any]) -> Step:
    n = _n_trials(findings)
    command = _launch(findings, context, "--trials", str(max(MIN_TRIALS, 2 * n)))
    return Step(f"Run more trials: {n} are too few for a verdict.", command)


def _end_repeats(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """Continue a study that was interrupted during its seed repeats."""
    if not findings.results.open_repeats:
        return []
    command = _launch(findings, context, "--trials", str(_n_trials(findings)))
    return [Step("Continue the study.", command, findings.results.open_repeats)]


def _confirm_winner(findings: Findings, context: dict[str, Any]) -> list[Step]:
    if findings.noise is not None:
        return []
    n = str(_n_trials(findings))
    sentence = "Confirm the winner and measure the noise: train the best configs with more seeds."
    return [Step(sentence, _launch(findings, context, "--trials", n, "--repeats", "5"))]


def _finish_best(findings: Findings, context: dict[str, Any]) -> list[Step]:
    best = findings.best
    if best is None or best.state != "PRUNED" or str(best.reason).startswith("diverged"):
        return []
    points = findings.results.points
    step = int(points.step[points.trial == best.trial].max())
    sentence = f"Finish the best trial: it was pruned at step {step:,} of {findings.max_steps:,}."
    n = str(_n_trials(findings))
    return [Step(sentence, _launch(findings, context, "--trials", n, "--finish-best"))]


def _widen_ranges(findings: Findings, context: dict[str, Any]) -> list[Step]:
    wider = [verdict for verdict in findings.ranges if verdict.verdict == "widen"]
    if not wider:
        return []
    names = _join([verdict.name for verdict in wider])
    ranges = "range" if len(wider) == 1 else "ranges"
    sentence = f"Widen the {ranges} of {names} in a new study."
    reason = " ".join(verdict.sentence for verdict in wider)
    arguments = ["--trials", str(_n_trials(findings))]
    for verdict in wider:
        arguments += ["--range", f"{verdict.name}={verdict.wider}"]
    return [Step(sentence, _launch(findings, context, *arguments, suffix=WIDE), reason)]


def _join(names: list[str]) -> str:
    """Return "a", "a and b", or "a, b and c"."""
    if len(names) == 1:
        return names[0]
    return f"{', '.join(names[:-1])} and {names[-1]}"


def _change_steps(findings: Findings, context: dict[str, Any]) -> list[Step]:
    steps = findings.max_steps
    if findings.budget.verdict == "lengthen":
        steps = 2 * steps
        sentence = f"Train longer: {steps:,} steps."
        suffix = LONGER
    elif findings.budget.verdict == "shorten":
        steps = max(10, steps // 4)
        sentence = f"Train shorter: {steps:,} steps."
        suffix = SHORTER
    else:
        return []
    arguments = ["--trials", str(_n_trials(findings)), "--steps", str(steps)]
    command = _launch(findings, context, *arguments, suffix=suffix)
    return [Step(sentence, command, findings.budget.sentence)]


def _prune_less(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """Search without a harmful pruner, or measure one that may hide the best trials."""
    pruning = findings.pruning
    if pruning.verdict == "harmful":
        arguments = ["--trials", str(_n_trials(findings)), "--no-prune"]
        command = _launch(findings, context, *arguments, suffix=UNPRUNED)
        return [Step("Search without pruning.", command, pruning.sentence)]
    if not pruning.may_hide_best:
        return []
    n = 2 * _n_trials(findings)
    command = _launch(findings, context, "--trials", str(n), "--audit-pruning", str(AUDIT_MORE))
    return [Step(f"Measure the pruner: add trials up to {n:,}.", command, pruning.sentence)]


def _add_trials(findings: Findings, context: dict[str, Any]) -> list[Step]:
    stopping = findings.stopping
    if not stopping.more_trials:
        return []
    n = _n_trials(findings) + stopping.more_trials
    return [Step(stopping.advice, _launch(findings, context, "--trials", str(n)))]


def _separate_ties(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """Compare the configs that are tied with the winner by more seeds."""
    winner = findings.winner
    if winner is None or winner.group is None or not winner.tied:
        return []
    repeats = str(max(MORE_REPEATS, 2 * winner.group.n))
    n = str(_n_trials(findings))
    sentence = f"Compare the {len(winner.tied) + 1} tied configs with more seeds."
    return [Step(sentence, _launch(findings, context, "--trials", n, "--repeats", repeats))]


# ---- the best config


def _export(findings: Findings, context: dict[str, Any]) -> Step:
    arguments = [findings.results.name, *context.get("store_flags", [])]
    return Step("Export the winner.", _command("experiments/export.py", arguments))


def _retrain(findings: Findings, context: dict[str, Any]) -> Step:
    file = f"experiments/configs/{findings.results.name}.toml"
    arguments = [file, "--seeds", "5", *context.get("retrain_flags", [])]
    return Step(
        "Retrain it with five seeds, and measure it on the test split.",
        _command("experiments/retrain.py", arguments),
    )
