"""The report as one HTML page that works without a network and without scripts."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any

from studies.harness.report.figures.style import PALETTE, look
from studies.harness.report.judge.findings import Findings, ModelCheck
from studies.harness.report.page.first_screen import first_screen
from studies.harness.report.page.markup import command, paragraph, text
from studies.harness.report.page.sections.best_trials import best_trials
from studies.harness.report.page.sections.noise import noise
from studies.harness.report.page.sections.parameters import parameters
from studies.harness.report.page.sections.progress import progress
from studies.harness.report.page.sections.steps import steps
from studies.harness.report.page.sections.words import samples, unseen_words

TEMPLATE = Path(__file__).with_name("page.html")


def build_page(findings: Findings, check: ModelCheck | None, context: dict[str, Any]) -> str:
    """Return the report as HTML.

    Args:
        findings: the verdicts on the study.
        check: the best model compared with baselines; sections that need it say so if it is None.
        context: see `next_steps`; further keys, each optional: data (name of the file of words),
            written (date and time as text), versions (package name to version), again (command
            that writes the page again).
    """
    with look():
        parts = [
            first_screen(findings, check, context),
            best_trials(findings, check),
            progress(findings),
            parameters(findings),
            noise(findings),
            steps(findings),
            unseen_words(check),
            samples(check),
            _about(context),
        ]
    light = "\n".join(f"--{name}: {colour};" for name, colour in PALETTE.items())
    template = string.Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute(
        title=text(f"{findings.results.name}: study"), light=light, body="\n".join(parts)
    )


def _about(context: dict[str, Any]) -> str:
    """Return the end of the page: when and how it was written."""
    facts = []
    if context.get("written"):
        facts.append(f"Written {context['written']}.")
    if context.get("versions"):
        versions = [f"{name} {version}" for name, version in context["versions"].items()]
        facts.append(f"{', '.join(versions)}.")
    facts.append("Losses are mean cross-entropy in nats per character.")
    parts = ["<h2>About this page</h2>", paragraph(*facts)]
    if context.get("again"):
        parts += [paragraph("To write it again:"), command(context["again"])]
    return "".join(parts)
