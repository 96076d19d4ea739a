"""First screen of the report: the best config, its loss with the noise, and what to do next."""

from __future__ import annotations

from typing import Any

from studies.harness.report.judge.findings import Findings, ModelCheck
from studies.harness.report.page.markup import command, paragraph, text
from studies.harness.report.page.next_steps import next_steps
from studies.harness.store.text import counted
from studies.harness.store.winner.winner import describe

# Fixed fields of the config that are shown next to the searched ones.
FIXED = ("optimizer", "schedule", "init", "max_steps")


def first_screen(findings: Findings, check: ModelCheck | None, context: dict[str, Any]) -> str:
    """Return the top of the page, before the numbered sections."""
    return f"""<h1>Study {text(findings.results.name)}</h1>
{paragraph(_facts(findings, context), style="muted")}
<div class="answer"><div>{_best(findings, check)}</div>
{_next_box(findings, context)}</div>"""


def _facts(findings: Findings, context: dict[str, Any]) -> str:
    """Return one line: number of trials, steps, outcomes, file of words."""
    outcomes = ", ".join(f"{n:,} {outcome}" for outcome, n in findings.outcomes.items())
    n_trials = counted(len(findings.results.trials), "trial")
    steps = counted(findings.max_steps, "step")
    facts = f"{n_trials} of {steps} ({outcomes or 'none has ended'})"
    if context.get("data"):
        facts += f" on {context['data']}"
    return f"{facts}{findings.results.model_note}."


def _next_box(findings: Findings, context: dict[str, Any]) -> str:
    items = []
    for step in next_steps(findings, context):
        reason = f' <span class="muted">{text(step.reason)}</span>' if step.reason else ""
        line = command(step.command) if step.command else ""
        items.append(f"<li><b>{text(step.sentence)}</b>{reason}{line}</li>")
    return f'<div class="next"><h2>What to do next</h2><ol>{"".join(items)}</ol></div>'


def _best(findings: Findings, check: ModelCheck | None) -> str:
    """Return the winner's loss and config, with its noise and the baselines."""
    winner = findings.winner
    if winner is None:
        return paragraph("No trial has a dev loss yet.")
    sentences = [*describe(winner), *_noise(findings), *_baseline_sentences(check, winner.loss)]
    if findings.stopping.verdict == "stop":
        sentences.append(f"{findings.stopping.advice} {_last_half(findings)}")
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    margin = f"± {winner.group.margin:.4f} " if winner.group else ""
    title = "Dev loss of the winner" if winner.group else "Dev loss of the winner, one seed"
    return f"""<p class="muted">{title}, trial {winner.number}</p>
<div class="score">{winner.loss:.4f}<small>{margin}nats per character</small></div>
{_config(findings)}<ul>{items}</ul>"""


def _noise(findings: Findings) -> list[str]:
    if findings.noise is None:
        return ["The noise is unknown: no config has two seed repeats yet."]
    return [
        "Two trials of one seed each differ significantly (95%) only from "
        f"{findings.noise.min_difference:.4f} on."
    ]


def _baseline_sentences(check: ModelCheck | None, loss: float) -> list[str]:
    """Compare the winner's dev loss with counting models."""
    if check is None:
        return []
    bigram = check.rungs[1]
    counts = check.rungs[-1]
    return [
        f"The winner is {_relative(loss, bigram.dev_loss)} bigram counts and "
        f"{_relative(loss, counts.dev_loss)} "
        "Kneser-Ney counts of 5 characters."
    ]


def _relative(loss: float, other: float) -> str:
    return f"{abs(other - loss):.4f} {'below' if other > loss else 'above'}"


def _last_half(findings: Findings) -> str:
    gain = findings.stopping.gain_last_half
    if gain > 0:
        return f"The last half of the trials lowered the best dev loss by {gain:.4f}."
    return "The last half of the trials did not lower the best dev loss."


def _config(findings: Findings) -> str:
    """Return the searched parameters of the best trial, then the fixed ones."""
    config = findings.config
    searched = [name for name in config if name in findings.results.space]
    fixed = [name for name in config if name in FIXED and name not in searched]
    spans = [f"<span>{_field(name, config[name])}</span>" for name in searched]
    spans += [f'<span class="fixed">{_field(name, config[name])}</span>' for name in fixed]
    return f'<div class="config">{"".join(spans)}</div>'


def _field(name: str, value: Any) -> str:
    shown = f"{value:.4g}" if isinstance(value, float) else value
    return f"{text(name)} <b>{text(shown)}</b>"
