"""Section 3: dev loss by parameter with a verdict on each range, importances, and the best lr."""

from __future__ import annotations

from functools import partial

from studies.harness.report.figures.importances import draw_importances
from studies.harness.report.figures.parallel import draw_parallel
from studies.harness.report.figures.slices import draw_best_lr, draw_slice
from studies.harness.report.judge.findings import Findings
from studies.harness.report.page.markup import Html, paragraph, picture, text, verdict_tag
from studies.harness.report.thinned import MAX_LINES

# Parameters on which the best lr may depend.
SIZES = ("batch_size", "n_hidden")


def parameters(findings: Findings) -> str:
    """Return the section."""
    head = "<h2>3. Parameters</h2>"
    results = findings.results
    if not results.space:
        return head + paragraph("No parameter was searched.")
    note = (
        "Each point is a trial. Blue: complete. Orange: the best five. Grey: pruned. A triangle at "
        "the top is a loss above the range of the chart, a cross is a trial that diverged."
    )

    pictures = []
    for verdict in findings.ranges:
        draw = partial(draw_slice, results=results, name=verdict.name)
        sentence = Html(verdict_tag(verdict.verdict) + text(verdict.sentence))
        pictures.append(picture(draw, f"Dev loss by {verdict.name}", sentence))
    draw = partial(draw_importances, results=results)
    pictures.append(picture(draw, "Importance of the parameters", margins=(128, 36, 40, 52)))
    for other in _searched_with_lr(findings):
        draw = partial(draw_best_lr, results=results, other=other)
        caption = (
            f"Orange: the best lr for each {other}. The stronger a point's colour, the better its "
            "trial."
        )
        pictures.append(picture(draw, f"Best lr by {other}", caption))

    return "".join(
        [
            head,
            paragraph(note, results.drawn_note()),
            '<div class="grid">',
            *pictures,
            "</div>",
            _parallel_coordinates(findings),
        ]
    )


def _parallel_coordinates(findings: Findings) -> str:
    caption = (
        "Each line is a trial. The stronger its colour, the better the trial; the best is orange. "
        "Losses above the range, mostly of pruned trials, end at the top."
    )
    caption = f"{caption} {findings.results.drawn_note(MAX_LINES)}".rstrip()
    draw = partial(draw_parallel, results=findings.results)
    return picture(
        draw, "Parallel coordinates", caption, size=(1080, 460), margins=(30, 64, 24, 20)
    )


def _searched_with_lr(findings: Findings) -> list[str]:
    """Return the sizes that were searched together with lr in each measured trial."""
    measured = findings.results.measured
    known = {*findings.results.space} & {*measured.columns}
    if len(measured) < 2 or "lr" not in known:
        return []
    return [
        name for name in SIZES if name in known and measured[[name, "lr"]].notna().all(axis=None)
    ]
