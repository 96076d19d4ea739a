"""The seven sections of the report."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

from studies.harness.report.best_so_far import AXES, best_at
from studies.harness.report.figures import search as search_figures
from studies.harness.report.figures import training as training_figures
from studies.harness.report.judge.findings import Findings, ModelCheck
from studies.harness.report.judge.pruning import RankCorrelation
from studies.harness.report.judge.ranges import N_BEST, Range
from studies.harness.report.page.markup import (
    THIRD,
    TITLED,
    WIDE,
    Html,
    bar,
    paragraph,
    picture,
    table,
    tag,
    text,
)
from studies.harness.report.scales import tick_label

MOST_TIED = 12  # rows of the table of tied trials
KINDS = {
    "widen": "act",
    "limit": "act",
    "inside": "fine",
    "lengthen": "act",
    "shorten": "act",
    "sufficient": "fine",
}
KINDS |= {"continue": "act", "stop": "fine"}


def answer(findings: Findings, examined: ModelCheck | None) -> str:
    """The tied trials, and how far the best stands below the ladder."""
    return "<h2>1. The answer</h2>" + _tied(findings) + _ladder(findings, examined)


def _tied(findings: Findings) -> str:
    if findings.best is None:
        return paragraph("No trial was measured.")
    names, noise = findings.results.params, findings.noise
    if noise is None or not len(findings.tied):
        shown, title = findings.results.measured[:N_BEST], f"Best {N_BEST} trials"
        note = "Which of them differ by more than chance is unknown without repeats."
    else:
        shown, title = findings.tied[:MOST_TIED], "Best and tied trials"
        note = f"Their dev losses lie less than {noise.min_difference:.4f} apart. The smallest model stands first."
    headings = ["trial", "dev loss", "train loss", *names, "parameters", "best step", "seconds"]
    rows = [
        [
            *(t["trial"], t["dev_loss"], t["train_loss"]),
            *(Html(text(tick_label(t[name]))) for name in names),
            *(t["n_params"], t["best_step"], Html(f"{t['seconds']:.2f}")),
        ]
        for t in shown.to_dict("records")
    ]
    here = next((i for i, row in enumerate(rows) if row[0] == findings.best.trial), None)
    rest = len(findings.tied) - len(rows)
    more = paragraph(f"And {rest} more.") if rest > 0 else ""
    return f"<h3>{title}</h3>" + paragraph(note) + table(headings, rows, here=here) + more


def _ladder(findings: Findings, examined: ModelCheck | None) -> str:
    if findings.best is None:
        return ""
    best = float(findings.best.dev_loss)
    rungs: list[tuple[str, float, float]] = []
    if examined is not None:
        names = {
            "uniform": "uniform guess, ln V",
            "interpolated": "interpolated counts, 4 characters of context",
        }
        rungs = [
            (names.get(r.name, f"{r.name} counts"), r.dev_loss, r.new_loss) for r in examined.rungs
        ]
        rungs += [(f"lecture, {name}", loss, math.nan) for name, loss in examined.lectures.items()]
    new = examined.new_loss if examined and examined.new_loss is not None else math.nan
    origin = findings.results.trials[findings.results.trials.origin.notna()]
    for row in origin[origin.dev_loss.notna()].itertuples():
        rungs.append((f"here, trial {row.trial}: {row.origin}", float(row.dev_loss), math.nan))  # type: ignore
    mine = f"best of this study, trial {findings.best.trial}"
    rungs = sorted([*rungs, (mine, best, new)], key=lambda rung: -rung[1])
    longest = max(abs(loss - best) for _, loss, _ in rungs) or 1.0
    rows: list[list[Any]] = []
    for name, loss, new_loss in rungs:
        lower = "" if name == mine else f"{loss - best:+.4f}".replace("-", "−")
        rows.append([name, loss, lower, bar((loss - best) / longest), new_loss])
    here = [row[0] for row in rows].index(mine)
    note = "What guessing and counting reach on the same dev split" + (
        ", and the lectures' models on their own file of names."
        if examined and examined.lectures
        else "."
    )
    return (
        "<h3>The ladder</h3>"
        + paragraph(note, "The third column is how far the study's best lies below.")
        + table(
            ["model", "dev loss", "above the best", "", "dev loss, unseen words"],
            rows,
            texts=(0, 3),
            here=here,
        )
    )


def best_so_far(findings: Findings) -> str:
    """Whether more trials would help, the best so far against trials, steps and seconds, and all training training."""
    curve, parts = findings.curve, ["<h2>2. Any time</h2>"]
    if len(curve):
        end = curve.iloc[-1]
        halves = {axis: best_at(curve, axis, end[axis] / 2) for axis in AXES}
        texts = [
            f"{loss:.4f} at half of the {axis}"
            for axis, loss in halves.items()
            if not math.isnan(loss)
        ]
        parts.append(
            paragraph(
                f"The search ended at {end.best:.4f}"
                + (f"; it had {', '.join(texts)}." if texts else ".")
            )
        )
    parts.append(_enough(findings))
    parts.append('<div class="grid">')
    for axis in ("steps", "seconds"):
        draw = partial(training_figures.draw_best_so_far, curve=curve, axis=axis)
        parts.append(picture(draw, f"Best dev loss against {axis}"))
    parts.append("</div>")
    caption = "Every trial's training. Pruned trials are grey, the best is orange."
    draw = partial(training_figures.draw_training, results=findings.results)
    return "".join(parts) + picture(
        draw, "Training curves of all trials", caption, size=WIDE, style="wide"
    )


def _enough(findings: Findings) -> str:
    """Whether more trials would help; the picture takes the place of the any-time curve against trials."""
    trials, noise_sd = findings.results.trials, findings.noise.sd if findings.noise else None
    search = findings.stopping
    verdict = tag(search.verdict, KINDS.get(search.verdict, "unknown"))
    first = Html(f"{verdict}<b>{text(search.advice)}</b>")
    head = "<h3>Have we searched enough?</h3>" + paragraph(first, search.reason)
    given = " The enqueued trial stands first there too." if trials.origin.notna().any() else ""
    caption = (
        "A blind draw takes the trials of this study in any order, with replacement, so it foretells no loss below "
        f"their best.{given} The sampler learns, and its trials do not come in any order: where the stair lies above "
        "the band, the later trials were better than the earlier ones, and further ones may bring more than the draw."
    )
    draw = partial(search_figures.draw_search, results=findings.results, noise_sd=noise_sd)
    return head + picture(
        draw, "Best dev loss against trials", caption, size=(1080, 360), style="wide"
    )


def parameters(findings: Findings) -> str:
    """One picture a parameter with its verdict, which of them matter, and how lr goes with the sizes."""
    results = findings.results
    parts = ["<h2>3. Parameters</h2>"]
    if not results.space:
        return "".join(parts) + paragraph("No parameter was searched.")
    note = "Each point is a trial: blue ones trained to the end, the best five are orange, grey ones were pruned, "
    parts.append(paragraph(note + "those above the picture are marked on its top edge, and a cross is a trial that "
                           "diverged."))  # fmt: skip
    parts.append('<div class="grid">')
    for boundary in findings.ranges:
        draw = partial(search_figures.draw_slice, results=results, name=boundary.name)
        parts.append(picture(draw, f"Dev loss against {boundary.name}", _verdict(boundary)))
    draw = partial(search_figures.draw_importances, results=results)
    parts.append(picture(draw, "Importances of the parameters", margins=(96, 36, 40, 52)))
    for other in _params_next_to_lr(findings):
        caption = f"The best lr for each {other} (orange); the stronger a point's colour, the better the trial."
        parts.append(
            picture(
                partial(training_figures.draw_best_lr, results=results, other=other),
                f"lr by {other}",
                caption,
            )
        )
    parts.append("</div>")
    draw = partial(search_figures.draw_parallel, results=results)
    caption = "A line is a trial, the stronger its colour the better; the best is orange. Pruned trials end at the top."
    look = {"size": (1080, 460), "margins": (30, 64, 24, 20), "style": "wide"}
    return "".join(parts) + picture(draw, "Parallel coordinates", caption, **look)  # type: ignore[arg-type]


def _params_next_to_lr(findings: Findings) -> list[str]:
    """The sizes on which the best lr may depend, where both were searched in every trial."""
    measured, space = findings.results.measured, findings.results.space
    both = [
        name
        for name in ("batch_size", "n_hidden")
        if {name, "lr"} <= {*space} & {*measured.columns}
    ]
    return [
        name for name in both if len(measured) > 1 and measured[[name, "lr"]].notna().all(axis=None)
    ]


def _verdict(verdict: Range | Any) -> Html:
    kind = KINDS.get(verdict.verdict, "unknown")
    return Html(tag(verdict.verdict, kind) + text(verdict.sentence))


def noise(findings: Findings) -> str:
    """What the seed alone changes."""
    found, parts = findings.noise, ["<h2>4. Noise floor</h2>"]
    if found is None:
        why = "No config was trained with two further seeds, so nothing tells a difference from chance."
        return "".join(parts) + paragraph(why)
    parts.append(
        paragraph(
            f"The dev loss of one config changes from seed to seed by a standard deviation of {found.sd:.4f} "
            f"({found.freedom} degrees of freedom). Two single trials differ, at 95%, when they lie "
            f"{found.min_difference:.4f} apart.",
            f"The repeats' means lie {found.selection_bias:.4f} above the trials' own losses: the winner's curse, the luck of a "
            "trial that was chosen for its low loss."
            if found.selection_bias > 0
            else "The repeats' means do not lie above the trials' own losses: no winner's curse shows.",
        )
    )
    rows = [
        [g.trial, g.own, g.repeats, g.mean, g.margin, g.sd, g.behind, "yes" if g.differs else "no"]
        for g in found.groups.itertuples()
    ]
    headings = [
        "trial",
        "own",
        "repeats",
        "mean",
        "± 95%",
        "sd",
        "behind the first",
        "more than noise",
    ]
    draw = partial(training_figures.draw_noise, noise=found, repeats=findings.results.repeats)
    size = (720, 110 + 44 * max(3, len(rows)))
    return (
        "".join(parts)
        + table(headings, rows)
        + picture(
            draw, "Losses of the repeats", size=size, margins=(84, 36, 20, 52), style="medium"
        )
    )


def budget(findings: Findings) -> str:
    """Whether the steps were enough, and the pruner fair."""
    parts = ["<h2>5. Steps and pruning</h2>", paragraph(_verdict(findings.budget))]
    kind = (
        "unknown"
        if math.isnan(findings.pruning.n_wrong)
        else "act"
        if findings.pruning.likely_wrong
        else "fine"
    )
    parts.append(paragraph(Html(tag("pruning", kind) + text(findings.pruning.sentence))))
    parts.append(paragraph(_correlations(findings.rank_correlations)))
    draw = partial(
        training_figures.draw_best_steps, results=findings.results, max_steps=findings.max_steps
    )
    parts.append(
        '<div class="grid three">' + picture(draw, "Best steps", size=THIRD, margins=TITLED)
    )
    for foretelling in findings.rank_correlations:
        draw = partial(
            training_figures.draw_rank_correlation,
            results=findings.results,
            foretelling=foretelling,
        )
        parts.append(
            picture(
                draw, f"Loss at {foretelling.share:.0%} and at the end", size=THIRD, margins=TITLED
            )
        )
    return "".join(parts) + "</div>"


def _correlations(foretold: list[RankCorrelation]) -> str:
    known = [f for f in foretold if not math.isnan(f.correlation)]
    if not known:
        return "Too few trials trained to their end to tell what early losses foretell."
    texts = [f"{f.correlation:.2f} at step {f.step:,}" for f in known]
    return (
        f"Rank correlation between the dev loss on the way and at the end: {' and '.join(texts)} (1 foretells the "
        f"ranking, 0 nothing), over the {known[0].n} trials that were not pruned."
    )


def unseen(findings: Findings, examined: ModelCheck | None) -> str:
    """The loss on dev words that the model cannot have learnt by heart."""
    parts = ["<h2>6. Words not seen in training</h2>"]
    if examined is None:
        return "".join(parts) + paragraph(
            "The file of words was not at hand when this page was written."
        )
    share = examined.n_new / max(1, examined.n_dev)
    parts.append(
        paragraph(
            f"{examined.n_new:,} of {examined.n_dev:,} dev words ({share:.1%}) do not stand in train. The others do "
            f"({1 - share:.1%}), and a model may know them by heart."
        )
    )
    if examined.dev_loss is None or examined.new_loss is None:
        return "".join(parts) + paragraph(
            "The best trial's model was not at hand, so it could not be measured on them."
        )
    counts = examined.rungs[-1]
    rows = [
        [
            "the best model",
            examined.dev_loss,
            examined.new_loss,
            examined.new_loss - examined.dev_loss,
        ],
        [
            "interpolated counts",
            counts.dev_loss,
            counts.new_loss,
            counts.new_loss - counts.dev_loss,
        ],
    ]
    return "".join(parts) + table(
        ["model", "all dev words", "unseen dev words", "difference"], rows, texts=(0,)
    )


def samples(examined: ModelCheck | None) -> str:
    """What the model makes up."""
    head = "<h2>7. Sampled names</h2>"
    if examined is None or examined.share_in_train is None:
        return head + paragraph("The best trial's model was not at hand, so nothing was sampled.")
    words = "".join(f"<li>{text(word)}</li>" for word in examined.words)
    share = f"None of these stands in train; {examined.share_in_train:.1%} of 1,000 samples do."
    return head + f'<ul class="words">{words}</ul>' + paragraph(share)
