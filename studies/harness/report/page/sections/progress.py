"""Section 2: best loss so far, whether more trials would help, and all training curves."""

from __future__ import annotations

import math
from functools import partial

from studies.harness.report.best_so_far import AXES, best_at
from studies.harness.report.figures.history import draw_best_by_trial, draw_best_so_far
from studies.harness.report.figures.losses import loss_window
from studies.harness.report.figures.training import draw_training
from studies.harness.report.judge.findings import Findings
from studies.harness.report.page.markup import (
    TITLED,
    WIDE,
    Html,
    paragraph,
    picture,
    text,
    verdict_tag,
)
from studies.harness.report.thinned import MAX_LINES

# Margins in pixels: room on the left for dev losses with four decimals.
LONG_TICKS = (88, 12, 22, 52)


def progress(findings: Findings) -> str:
    """Return the section."""
    parts = ["<h2>2. Progress of the search</h2>"]
    if len(findings.curve):
        parts.append(paragraph(_half_way(findings)))
    parts.append(_more_trials(findings))
    parts.append('<div class="grid">')
    highest = loss_window(findings.results.trials)[1]
    for axis in AXES:
        draw = partial(draw_best_so_far, curve=findings.curve, axis=axis, highest=highest)
        parts.append(picture(draw, f"Best dev loss so far by {axis}", margins=LONG_TICKS))
    parts.append("</div>")

    results = findings.results
    caption = (
        "Dev loss of each trial during training. Pruned trials are grey, the best is orange. "
        f"High losses are cut off. {results.drawn_note(MAX_LINES)}".rstrip()
    )
    draw = partial(draw_training, results=results)
    parts.append(picture(draw, "Training curves of the trials", caption, size=WIDE, margins=TITLED))
    return "".join(parts)


def _half_way(findings: Findings) -> str:
    """Return the best dev loss at the end, and at half of the steps and seconds."""
    curve = findings.curve
    end = curve.iloc[-1]
    halves = []
    for axis in AXES:
        loss = best_at(curve, axis, end[axis] / 2)
        if not math.isnan(loss):
            halves.append(f"{loss:.4f} at half of the {axis}")
    earlier = f"; it was {' and '.join(halves)}" if halves else ""
    return f"The lowest dev loss of a single trial is {end.best:.4f}{earlier}."


def _more_trials(findings: Findings) -> str:
    """Return the verdict on the number of trials, with its figure."""
    stopping = findings.stopping
    verdict = Html(verdict_tag(stopping.verdict) + f"<b>{text(stopping.advice)}</b>")

    caption = (
        "Best final dev loss of the complete trials so far. On this page, trials are in the order "
        "of their numbers. Pruned trials have no final loss."
    )
    noise_sd = findings.noise.sd if findings.noise else None
    draw = partial(draw_best_by_trial, results=findings.results, noise_sd=noise_sd)
    name = "Best dev loss so far by number of trials"
    return (
        "<h3>Would more trials help?</h3>"
        + paragraph(verdict, stopping.reason)
        + picture(draw, name, caption, size=(1080, 360), margins=LONG_TICKS)
    )
