"""The report: one HTML page that tells a study's story, works without a network and without scripts."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from studies.harness.report.figures.style import PALETTE, look
from studies.harness.report.judge.findings import Findings, ModelCheck
from studies.harness.report.page import sections
from studies.harness.report.page.markup import Html, command, paragraph, text
from studies.harness.report.page.next_steps import next_steps

TEMPLATE = Path(__file__).with_name("page.html")


def build_page(findings: Findings, examined: ModelCheck | None, context: dict[str, Any]) -> str:
    """The page as HTML.

    Args:
        examined: what the corpus told; without it the sections that need it say so.
        context: see `next_steps`; also data (the name of the file of words), written (when, as text) and versions.
    """
    with look():
        parts = [
            _first_screen(findings, examined, context),
            sections.answer(findings, examined),
            sections.best_so_far(findings),
            sections.parameters(findings),
            sections.noise(findings),
            sections.budget(findings),
            sections.unseen(findings, examined),
            sections.samples(examined),
            _end(findings, context),
        ]
    page = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    light = "\n".join(f"--{name}: {colour};" for name, colour in PALETTE.items())
    return page.substitute(
        title=text(f"{findings.results.name}: study"), light=light, body="\n".join(parts)
    )


def _first_screen(findings: Findings, examined: ModelCheck | None, context: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{n} {kind}" for kind, n in findings.outcomes.items()) or "none ended"
    n = len(findings.results.trials)
    facts = f"{n} trials of {findings.max_steps:,} steps ({outcomes})"
    if context.get("data"):
        facts += f" on {context['data']}"
    steps = "".join(
        f"<li>{text(step.sentence)}{command(step.command) if step.command else ''}</li>"
        for step in next_steps(findings, context)
    )
    return f"""<h1>Study {text(findings.results.name)}</h1>
{paragraph(facts + ".", style="muted")}
<div class="answer"><div>{_score(findings, examined)}</div>
<div class="next"><h2>What to do next</h2><ol>{steps}</ol></div></div>"""


def _score(findings: Findings, examined: ModelCheck | None) -> str:
    if findings.best is None:
        return paragraph("No trial has a dev loss, so there is no answer yet.")
    loss = float(findings.best.dev_loss)
    sentences = []
    if findings.noise is None:
        sentences.append("Its noise is unknown: no config was trained with further seeds.")
    else:
        group = findings.noise.best
        which = (
            "With"
            if group.trial == findings.best.trial
            else f"Best by its repeats is trial {group.trial}: with"
        )
        sentences.append(
            f"{which} {group.repeats} further seeds {group['mean']:.4f} ± {group.margin:.4f} (95%); "
            f"two trials differ when they lie {findings.noise.min_difference:.4f} apart."
        )
        others = len(findings.tied) - 1
        sentences.append(
            f"{others} other {'trial is' if others == 1 else 'trials are'} tied with it, given that noise."
            if others > 0
            else "No other trial is tied with it, given that noise."
        )
    if examined is not None:
        rung = examined.rungs[-1]
        lower = rung.dev_loss - loss
        sentences.append(
            f"{abs(lower):.4f} {'below' if lower > 0 else 'above'} counting four characters of context, "
            f"{examined.rungs[1].dev_loss - loss:.4f} below the bigram."
        )
    search = findings.stopping
    if search.verdict == "stop":
        brought = (
            f"lowered the best dev loss by {search.gain_last_half:.4f}"
            if search.gain_last_half
            else "brought nothing"
        )
        sentences.append(f"{search.advice} The last half of the trials {brought}.")
    items = "".join(f"<li>{text(sentence)}</li>" for sentence in sentences)
    return f"""<p class="muted">Best dev loss, trial {findings.best.trial}</p>
<div class="score">{loss:.4f}<small>nats per character</small></div>
{_config(findings)}<ul>{items}</ul>"""


def _config(findings: Findings) -> Html:
    """The searched parameters of the best trial, then the fixed ones."""
    searched = set(findings.results.space)
    shown = sorted(findings.config.items(), key=lambda item: item[0] not in searched)
    spans = [
        f'<span class="{"" if name in searched else "fixed"}">{text(name)} <b>{_value(value)}</b></span>'
        for name, value in shown
        if name in searched or name in ("optimizer", "schedule", "init", "max_steps")
    ]
    return Html(f'<div class="config">{"".join(spans)}</div>')


def _value(value: Any) -> str:
    return text(f"{value:.4g}" if isinstance(value, float) else value)


def _end(findings: Findings, context: dict[str, Any]) -> str:
    versions = ", ".join(
        f"{name} {version}" for name, version in context.get("versions", {}).items()
    )
    facts = [
        f"Written {context['written']}." if context.get("written") else "",
        f"{versions}." if versions else "",
    ]
    again = context.get("again", "")
    return (
        "<h2>This page</h2>"
        + paragraph(
            *[fact for fact in facts if fact],
            "Losses are mean cross-entropy in nats per character.",
        )
        + (paragraph("To write it again:") + command(again) if again else "")
    )
