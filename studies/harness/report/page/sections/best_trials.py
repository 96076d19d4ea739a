"""Section 1: the best trials, and the best one compared with baselines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from studies.harness.report.judge.findings import Findings, ModelCheck
from studies.harness.report.judge.ranges import N_BEST
from studies.harness.report.page.markup import Html, bar, paragraph, table, text
from studies.harness.report.scales import tick_label
from studies.harness.store.winner.noise import Group

if TYPE_CHECKING:
    import pandas as pd

BASELINES = {
    "uniform": "uniform guess, ln V",
    "interpolated": "interpolated counts, 4 characters of context",
    "kneser-ney": "Kneser-Ney counts, 5 characters of context",
}

# Name, dev loss, and dev loss on words that are not in train; nan where unknown.
Baseline = tuple[str, float, float]


def best_trials(findings: Findings, check: ModelCheck | None) -> str:
    """Return the section: a table of the best trials, and a table of baselines."""
    head = "<h2>1. Best trials</h2>"
    best = findings.best
    if best is None:
        return head + paragraph("No trial has a dev loss.")
    return (
        head
        + _best_table(findings, best)
        + paragraph(*_train_loss(check), *_ensemble(check), *_fixed(findings))
        + _baseline_table(findings, best, check)
    )


def _best_table(findings: Findings, best: pd.Series) -> str:
    """Return the winner, then the trials with the lowest dev losses of their own."""
    names = findings.results.params
    measured = findings.results.measured
    others = measured[measured.trial != best.trial][: N_BEST - 1]
    trials = [best.to_dict(), *others.to_dict("records")]
    noise = findings.noise
    groups = {group.trial: group for group in noise.groups} if noise else {}
    note = "The winner comes first, then the trials with the lowest dev losses of one seed."
    if not groups:
        note += " Without seed repeats it is unknown which differences are significant."

    headings = ["trial", "dev loss, one seed", "mean of repeats", *names]
    headings += ["parameters", "best step", "seconds"]
    rows = [_best_row(trial, groups.get(trial["trial"]), names) for trial in trials]
    title = f"Best {len(rows)} trials" if len(rows) > 1 else "Best trial"
    return f"<h3>{title}</h3>" + paragraph(note) + table(headings, rows, here=0)


def _train_loss(check: ModelCheck | None) -> list[str]:
    """Return the sentence about the exact losses of the winner's own model, if it is known."""
    if check is None or check.gap is None:
        return []
    return [
        f"The winner's own model has train loss {check.train_loss:.4f} and dev loss "
        f"{check.dev_loss:.4f}, each exact over its split; dev − train is {check.gap:.4f}."
    ]


def _ensemble(check: ModelCheck | None) -> list[str]:
    """Return the sentence about an ensemble of the kept models, if it was estimated."""
    return [] if check is None or check.ensemble is None else [check.ensemble.sentence]


def _fixed(findings: Findings) -> list[str]:
    """Return the sentence about the settings that no trial changed."""
    fixed = ", ".join(f"{name} {tick_label(value)}" for name, value in findings.fixed.items())
    return [f"Fixed in all trials: {fixed}."] if fixed else []


def _best_row(trial: dict[Any, Any], group: Group | None, names: list[str]) -> list[Any]:
    confirmed = group.mean_text if group else ""
    return [
        trial["trial"],
        trial["dev_loss"],
        confirmed,
        *(Html(text(tick_label(trial[name]))) for name in names),
        trial["n_params"],
        trial["best_step"],
        Html(f"{trial['seconds']:.2f}"),
    ]


def _baseline_table(findings: Findings, best: pd.Series, check: ModelCheck | None) -> str:
    """Return the baselines and the winner, highest dev loss first."""
    assert findings.winner is not None
    best_loss = findings.winner.loss
    best_name = f"winner of this study, trial {best.trial}"
    best_new = check.new_loss if check and check.new_loss is not None else math.nan
    baselines = [*_baselines(check), *_enqueued_trials(findings)]
    if not baselines:
        return ""
    baselines.append((best_name, best_loss, best_new))
    baselines.sort(key=lambda baseline: -baseline[1])

    largest = max(abs(loss - best_loss) for _, loss, _ in baselines) or 1.0
    rows: list[list[Any]] = []
    for name, loss, new_loss in baselines:
        difference = "" if name == best_name else _relative(loss, best_loss)
        rows.append([name, loss, difference, bar((loss - best_loss) / largest), new_loss])
    here = [row[0] for row in rows].index(best_name)

    note = "Models that guess or count, on the same dev split"
    if check and check.lectures:
        note += ", and the lectures' models on their own file of names"
    note += "."
    if best_loss != float(best.dev_loss):
        note += " The winner's dev loss is the mean of its seed repeats"
        note += ", its loss on words not in train that of its own model." if check else "."
    limit = check.limit if check else ""
    headings = ["model", "dev loss", "against the winner", "", "dev loss, words not in train"]
    return (
        "<h3>Comparison with baselines</h3>"
        + paragraph(f"{note} {limit}".rstrip())
        + table(headings, rows, texts=(0, 3), here=here)
    )


def _relative(loss: float, best: float) -> str:
    """Say how far a loss is above or below the best one, as the first screen does."""
    return f"{abs(loss - best):.4f} {'below' if loss < best else 'above'}"


def _baselines(check: ModelCheck | None) -> list[Baseline]:
    if check is None:
        return []
    counts = [
        (BASELINES.get(rung.name, f"{rung.name} counts"), rung.dev_loss, rung.new_loss)
        for rung in check.rungs
    ]
    lectures = [(f"lecture, {name}", loss, math.nan) for name, loss in check.lectures.items()]
    return [*counts, *lectures]


def _enqueued_trials(findings: Findings) -> list[Baseline]:
    """Return the study's own trials with a config that was given, such as the lecture's."""
    trials = findings.results.measured
    return [
        (f"here, trial {trial['trial']}: {trial['origin']}", float(trial["dev_loss"]), math.nan)
        for trial in trials[trials.origin.notna()].to_dict("records")
    ]
