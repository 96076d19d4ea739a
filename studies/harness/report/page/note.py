"""The note on a study's parent run: what was searched, what came of it, and what to do next, in Markdown."""

from __future__ import annotations

import math
from typing import Any

from optuna.distributions import BaseDistribution, distribution_to_json

from studies.harness.report.judge.findings import Findings
from studies.harness.report.page.next_steps import next_steps
from studies.harness.report.scales import tick_label
from studies.harness.store.study import format_range
from studies.harness.tracking.views import CHARTS, NAMES, TRIALS, view_link

NOTE = "mlflow.note.content"  # the tag that MLflow shows as the description of a run


def write_note(findings: Findings, context: dict[str, Any], experiment_id: str) -> str:
    """The note as Markdown.

    Args:
        context: see `next_steps`; also command, the command line of this launch.
    """
    results = findings.results
    outcomes = ", ".join(f"{n} {kind}" for kind, n in findings.outcomes.items()) or "none ended"
    links = [
        f"[{NAMES[view]}]({view_link('', experiment_id, view).lstrip('/')})"
        for view in (TRIALS, CHARTS)
    ]
    parts = [
        f"## {results.name}: {_headline(findings)}",
        f"{len(results.trials)} trials of {findings.max_steps:,} steps ({outcomes}). {' · '.join(links)}",
        _best(findings),
        "### Searched\n\n" + "\n".join(_range(name, d) for name, d in results.space.items()),
        "### Verdicts\n\n" + "\n".join(f"- {sentence}" for sentence in verdicts(findings)),
        "### Next\n\n"
        + "\n".join(_step(step.sentence, step.command) for step in next_steps(findings, context)),
    ]
    if context.get("command"):
        parts.append(f"### Made by\n\n{_code(context['command'])}")
    return "\n\n".join(part for part in parts if part)


def verdicts(findings: Findings) -> list[str]:
    """One item a verdict: noise, ties, ranges, steps, pruning, number of trials."""
    noise = findings.noise
    if noise is None:
        first = ["The noise between seeds is unknown: no config was trained with further seeds."]
    else:
        first = [
            f"Two trials differ, at 95%, when their dev losses lie {noise.min_difference:.4f} apart (sd between seeds "
            f"{noise.sd:.4f}); {len(findings.tied)} trials are not told apart from the best, itself included.",
        ]
        if noise.selection_bias > 0:
            first.append(
                f"A chosen trial's own loss flatters it by {noise.selection_bias:.4f}, seen from its repeats' mean."
            )
    ranges = [boundary.sentence for boundary in findings.ranges if boundary.verdict != "unknown"]
    enough = f"{findings.stopping.advice} {findings.stopping.reason}"
    return [*first, *ranges, findings.budget.sentence, findings.pruning.sentence, enough]


def _headline(findings: Findings) -> str:
    if findings.best is None:
        return "no trial was measured"
    headline = f"dev loss {findings.best.dev_loss:.4f} (trial {findings.best.trial})"
    if findings.noise is None:
        return headline
    group = findings.noise.best
    return f"{headline}; {group['mean']:.4f} ± {group.margin:.4f} with further seeds (trial {group.trial})"


def _best(findings: Findings) -> str:
    if findings.best is None:
        return ""
    names = findings.results.params
    values = ", ".join(f"`{name}` {tick_label(findings.best[name])}" for name in names)
    gap = "" if math.isnan(findings.best.gap) else f"; dev − train {findings.best.gap:.4f}"
    return f"**Best config**: {values}{gap}." if names else ""


def _range(name: str, distribution: BaseDistribution) -> str:
    return f"- `{name}`: {format_range(distribution_to_json(distribution))}"


def _step(sentence: str, command: str) -> str:
    # A number in front of a code block would begin anew after it in MLflow's Markdown.
    return f"- {sentence}" + (f"\n\n{_code(command)}\n" if command else "")


def _code(command: str) -> str:
    return f"```\n{command}\n```"
