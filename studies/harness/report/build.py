"""What a study leaves beside its trials: a table, pictures and a page."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from makemore.data import Corpus
from makemore.model import MLP
from studies.harness.report.results import read_results, trials_frame

if TYPE_CHECKING:
    from studies.harness.report.judge.findings import Examined, Findings

__all__ = ["examine_study", "make_report", "render_report", "trials_frame", "write_study_files"]


def write_study_files(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv and the study's pictures: history.png, importances.png, parallel.png, slices.png."""
    from studies.harness.report.figures.search import (
        write_pictures,  # matplotlib takes 0.3 s to import
    )

    trials_frame(study).to_csv(folder / "trials.csv", index=False)
    write_pictures(read_results(study), folder)


def examine_study(
    study: optuna.Study, corpus: Corpus | None, best_model: MLP | None
) -> tuple[Findings, Examined | None]:
    """What there is to say of a study; about a second for the counting baselines.

    Args:
        corpus: the study's words; without them there is no ladder.
        best_model: of the trial of lowest dev loss; without it there are no samples and no loss on unseen words.
    """
    from studies.harness.report.judge.findings import examine, find

    return find(read_results(study)), None if corpus is None else examine(corpus, best_model)


def render_report(
    study: optuna.Study,
    findings: Findings,
    examined: Examined | None,
    context: dict[str, Any] | None = None,
) -> str:
    """The study's page as HTML.

    Args:
        context: what the study does not know of itself, each key optional: script (the study's script, relative to the
            project), flags (what else its command line needs to go on: --names, --storage, --tracking-uri),
            store_flags (those that lead other scripts to the stores), again (the command that writes the page again),
            versions (name to version).
    """
    from studies.harness.report.page.page import build_page

    known = {"data": study.user_attrs.get("data"), "script": study.user_attrs.get("script")}
    given = {**{key: value for key, value in known.items() if value}, **(context or {})}
    return build_page(findings, examined, given)


def make_report(
    study: optuna.Study,
    corpus: Corpus | None,
    best_model: MLP | None,
    context: dict[str, Any] | None = None,
) -> str:
    """The study's page as HTML, from the study; see `examine_study` and `render_report`."""
    return render_report(study, *examine_study(study, corpus, best_model), context)
