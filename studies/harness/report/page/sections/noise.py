"""Section 4: how much the dev loss changes between seeds of one config."""

from __future__ import annotations

from functools import partial

from studies.harness.report.figures.noise import draw_noise
from studies.harness.report.judge.findings import Findings
from studies.harness.report.page.markup import paragraph, picture, table
from studies.harness.store.winner.noise import Group, Noise, describe_bias

HEADINGS = [
    "trial",
    "dev loss",
    "repeats",
    "mean of repeats",
    "± 95%",
    "sd",
    "above the lowest mean",
    "± 95%",
    "significant",
]


def noise(findings: Findings) -> str:
    """Return the section."""
    head = "<h2>4. Noise between seeds</h2>"
    found = findings.noise
    if found is None:
        return head + paragraph(
            "The noise is unknown: no config has two seed repeats. Without it, chance may explain "
            "any difference between trials."
        )
    lowest = found.groups[0].mean
    rows = [
        [
            str(group.trial),
            group.own,
            group.n,
            group.mean,
            group.margin,
            group.sd,
            *_difference(group, lowest),
        ]
        for group in found.groups
    ]
    winner = findings.winner.number if findings.winner else None
    here = next((i for i, group in enumerate(found.groups) if group.trial == winner), None)
    draw = partial(draw_noise, noise=found)
    size = (720, 110 + 44 * max(3, len(rows)))
    return "".join(
        [
            head,
            paragraph(*_summary(found)),
            table(HEADINGS, rows, here=here),
            picture(draw, "Dev losses of the seed repeats", size=size, margins=(84, 36, 20, 52)),
        ]
    )


def _difference(group: Group, lowest: float) -> tuple[float | str, float | str, str]:
    """Return a mean minus the lowest one with its margin; empty for the lowest."""
    if group.mean == lowest:
        return "", "", ""
    return group.mean - lowest, group.difference_margin, "yes" if group.differs else "no"


def _summary(found: Noise) -> list[str]:
    sentences = [
        "At the end of each launch, the best configs were trained again with other seeds. The "
        "config with the lowest mean is the winner. Its mean is a little low by luck, because it "
        "is the lowest of several.",
        f"The dev loss of one config varies between seeds with a standard deviation of "
        f"{found.sd:.4f} ({found.freedom} degrees of freedom).",
        f"A difference between two single trials is significant (95%) if it is at least "
        f"{found.min_difference:.4f}. The table compares means, which vary less.",
    ]
    sentences.append(describe_bias(found))
    return sentences
