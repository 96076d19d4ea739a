"""Markdown note on a study's parent run in MLflow: best config, ranges, verdicts, next steps."""

from __future__ import annotations

from typing import Any

from optuna.distributions import distribution_to_json

from studies.harness.report.judge.findings import Findings
from studies.harness.report.page.next_steps import Step, next_steps
from studies.harness.report.scales import tick_label
from studies.harness.store.study import format_range
from studies.harness.store.text import counted
from studies.harness.store.winner.noise import describe_bias
from studies.harness.store.winner.winner import describe
from studies.harness.tracking.views import CHARTS, NAMES, TRIALS, view_link

MAX_NOTE = 8000  # characters of a tag; MLflow cuts a longer one
SHORTENED = "This note is shortened; the report has everything."


def write_note(findings: Findings, context: dict[str, Any], experiment_id: str) -> str:
    """Return the note as Markdown.

    Args:
        findings: the verdicts on the study.
        context: see `next_steps`; also command, the command line of this launch.
        experiment_id: of the study in MLflow, for links to its saved views.
    """
    results = findings.results
    ranges = [
        f"- `{name}`: {format_range(distribution_to_json(distribution))}"
        for name, distribution in results.space.items()
    ]
    sentences = [f"- {sentence}" for sentence in verdicts(findings)]
    steps = [_step(step) for step in next_steps(findings, {**results.facts, **context})]
    parts = [
        f"## {results.name}: {_headline(findings)}",
        "\n".join(f"- {line}" for line in describe(findings.winner)) if findings.winner else "",
        _facts(findings, experiment_id),
        _best(findings),
        "\n".join(["### Searched\n", *ranges]),
        "\n".join(["### Verdicts\n", *sentences]),
        "\n".join(["### Next\n", *steps]),
        f"### Made by\n\n{_code(context['command'])}" if context.get("command") else "",
    ]
    return _join(parts)


def _join(parts: list[str]) -> str:
    """Join the parts with empty lines; leave out the longest ones if MLflow would cut the note."""
    parts = [part for part in parts if part]
    left_out = False
    while len(note := "\n\n".join([*parts, *[SHORTENED] * left_out])) > MAX_NOTE:
        # The headline stays.
        parts.remove(max(parts[1:], key=len))
        left_out = True
    return note


def verdicts(findings: Findings) -> list[str]:
    """Return the verdicts as sentences: noise, ranges, steps, pruning, number of trials."""
    stopping = findings.stopping
    return [
        *_noise(findings),
        *(verdict.sentence for verdict in findings.ranges if verdict.verdict != "unknown"),
        findings.budget.sentence,
        findings.pruning.sentence,
        f"{stopping.advice} {stopping.reason}",
    ]


def _noise(findings: Findings) -> list[str]:
    noise = findings.noise
    if noise is None:
        return ["The noise between seeds is unknown: no config has two seed repeats."]
    sentences = [
        "Two trials of one seed each differ significantly (95%) only from "
        f"{noise.min_difference:.4f} on (sd between seeds {noise.sd:.4f})."
    ]
    return [*sentences, describe_bias(noise)]


def _headline(findings: Findings) -> str:
    winner = findings.winner
    if winner is None:
        return "no trial was measured"
    confirmed = "" if winner.group else ", not confirmed"
    return f"dev loss {winner.loss_text} (trial {winner.number}{confirmed})"


def _facts(findings: Findings, experiment_id: str) -> str:
    """Return number of trials, steps and outcomes, and links to the saved views."""
    results = findings.results
    outcomes = ", ".join(f"{n:,} {outcome}" for outcome, n in findings.outcomes.items())
    links = [
        f"[{NAMES[view]}]({view_link('', experiment_id, view).lstrip('/')})"
        for view in (TRIALS, CHARTS)
    ]
    return (
        f"{counted(len(results.trials), 'trial')} of {counted(findings.max_steps, 'step')} "
        f"({outcomes or 'none has ended'}){results.model_note}. {' · '.join(links)}"
    )


def _best(findings: Findings) -> str:
    names = findings.results.params
    if findings.best is None or not names:
        return ""
    searched = {name: findings.best[name] for name in names}
    gap = "" if findings.gap is None else f"; dev − train {findings.gap:.4f}"
    best = f"**Best config**: {_values(searched)}{gap}."
    fixed = f"\n\nFixed in all trials: {_values(findings.fixed)}." if findings.fixed else ""
    return best + fixed


def _values(config: dict[str, Any]) -> str:
    return ", ".join(f"`{name}` {tick_label(value)}" for name, value in config.items())


def _step(step: Step) -> str:
    # Not a numbered list: MLflow's Markdown restarts the numbers after a code block.
    command = f"\n\n{_code(step.command)}\n" if step.command else ""
    return f"- {step.sentence}{command}"


def _code(command: str) -> str:
    return f"```\n{command}\n```"
