"""Section 5: whether the trials had enough steps, and whether the pruner stopped good trials."""

from __future__ import annotations

import math
from functools import partial

from studies.harness.report.figures.training import draw_best_steps, draw_rank_correlation
from studies.harness.report.judge.findings import Findings
from studies.harness.report.judge.pruning import Pruning, RankCorrelation
from studies.harness.report.page.markup import (
    KINDS,
    THIRD,
    TITLED,
    Html,
    paragraph,
    picture,
    tag,
    text,
    verdict_tag,
)


def steps(findings: Findings) -> str:
    """Return the section."""
    budget = findings.budget
    results = findings.results
    parts = [
        "<h2>5. Steps and pruning</h2>",
        paragraph(Html(verdict_tag(budget.verdict) + text(budget.sentence))),
        paragraph(Html(_pruning_tag(findings.pruning) + text(findings.pruning.sentence))),
        paragraph(_rank_correlations(findings.rank_correlations, findings.pruning.n_pruned)),
        '<div class="grid three">',
    ]
    draw = partial(draw_best_steps, results=results, max_steps=findings.max_steps)
    parts.append(picture(draw, "Best steps", size=THIRD, margins=TITLED))
    for rank in findings.rank_correlations:
        draw = partial(draw_rank_correlation, results=results, rank=rank)
        description = f"Final dev loss by dev loss at {rank.share:.0%} of the steps"
        parts.append(picture(draw, description, size=THIRD, margins=TITLED))
    return "".join([*parts, "</div>"])


def _pruning_tag(pruning: Pruning) -> Html:
    return tag(f"pruning: {pruning.verdict}", KINDS.get(pruning.verdict, "unknown"))


def _rank_correlations(ranks: list[RankCorrelation], n_pruned: int) -> str:
    known = [rank for rank in ranks if not math.isnan(rank.correlation)]
    if not known:
        return "Too few complete trials to tell whether early losses predict the final ranking."
    values = [f"{rank.correlation:.2f} at step {rank.step:,}" for rank in known]
    missing = ""
    if n_pruned:
        trials = "pruned trial, which is" if n_pruned == 1 else "pruned trials, which are"
        missing = f" It says nothing about the {n_pruned:,} {trials} missing."
    return (
        f"Rank correlation of an early dev loss with the final one: {' and '.join(values)}, over "
        f"{known[0].n:,} complete trials. 1 predicts the final ranking, 0 predicts nothing."
        f"{missing}"
    )
