"""What to do after a search: sentences and commands, the most useful first."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from studies.harness.cli.commands import shell_command
from studies.harness.report.judge.findings import Findings
from studies.harness.report.judge.ranges import MIN_MEASURED
from studies.harness.store.text import without_password


@dataclass(frozen=True)
class Step:
    """One thing to do.

    Attributes:
        sentence: what, and why.
        command: to be pasted into a shell; empty where there is none.
    """

    sentence: str
    command: str = ""


def _command(script: str, arguments: list[str]) -> str:
    """A command for a page that others may read: without the password of a storage URL."""
    return shell_command(script, [without_password(argument) for argument in arguments])


def next_steps(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """What to do next, from the verdicts.

    Args:
        context: script (the study's script, relative to the project) and flags (its further arguments: --names and the
            stores), store_flags (those that lead to the stores alone); each may be missing.
    """
    search = _search_steps(findings, context)
    if findings.best is None:
        return search
    name, flags = findings.results.name, context.get("store_flags", [])
    chosen = int(findings.tied.trial.iloc[0]) if len(findings.tied) else int(findings.best.trial)
    export = [name, *flags]
    retrain = [
        f"experiments/configs/{name}.toml",
        "--seeds",
        "5",
        *context.get("retrain_flags", []),
    ]
    what = "Take the best config out"
    if len(findings.tied) > 1 and chosen != int(findings.best.trial):
        export += ["--trial", str(chosen)]
        what = f"Take out trial {chosen}, the smallest model among those tied with the best"
    return [
        *search,
        Step(f"{what}, to train it again.", _command("experiments/export.py", export)),
        Step(
            "Train it with five seeds, and measure it on the test split.",
            _command("experiments/retrain.py", retrain),
        ),
    ]


def _search_steps(findings: Findings, context: dict[str, Any]) -> list[Step]:
    """How to search better, if there is a way."""
    n = int(findings.results.trials.finishes.isna().sum())  # what --trials counts

    def again(*arguments: str, study: str = "") -> str:
        if "script" not in context:
            return ""
        kept = list(context.get("flags", []))
        if "--steps" in arguments and "--steps" in kept:
            first = kept.index("--steps")
            del kept[first : first + 2]
        return _command(
            context["script"], ["--study", study or findings.results.name, *kept, *arguments]
        )

    if findings.best is None:
        why = "No trial was measured" + (
            ": all diverged" if findings.outcomes.get("diverged") == n and n else ""
        )
        return [Step(f"{why}. Lower the range of lr, and search again under another name.")]
    if len(findings.results.measured) < MIN_MEASURED:
        return [
            Step(
                f"Search on: {n} trials are too few to judge by.",
                again("--trials", str(max(32, 2 * n))),
            )
        ]
    steps = []
    if findings.noise is None:
        why = "Learn how much of the differences is chance: train the best three configs with three seeds each."
        steps.append(Step(why, again("--trials", str(n), "--repeats", "3")))
    if findings.best.state == "PRUNED" and not str(findings.best.reason).startswith("diverged"):
        points = findings.results.points
        step = int(points.step[points.trial == findings.best.trial].max())
        why = f"The best trial was pruned at step {step:,} of {findings.max_steps:,}: train it to its end."
        steps.append(Step(why, again("--trials", str(n), "--finish-best")))
    name = findings.results.name
    wider = [boundary for boundary in findings.ranges if boundary.verdict == "widen"]
    if wider:
        reasons = " ".join(boundary.sentence for boundary in wider)
        how = "Change the range where the space is written, and search again."
        steps.append(Step(f"{reasons} {how}", again(study=f"{name}-wider")))
    steps_now = findings.max_steps
    if findings.budget.verdict in ("lengthen", "shorten"):
        more = findings.budget.verdict == "lengthen"
        new = 2 * steps_now if more else max(10, steps_now // 4)
        study = f"{name}-{'longer' if more else 'shorter'}"
        steps.append(Step(findings.budget.sentence, again("--steps", str(new), study=study)))
    if findings.pruning.verdict == "too eager":
        steps.append(Step(findings.pruning.sentence, again("--no-prune", study=f"{name}-unpruned")))
    search = findings.stopping
    if search.more_trials:
        steps.append(Step(search.advice, again("--trials", str(n + search.more_trials))))
    return steps
