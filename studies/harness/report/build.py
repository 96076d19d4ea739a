"""Build the files of a study's report: a table, figures and an HTML page."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from makemore.counts import first_words
from makemore.data import Corpus
from makemore.model import MLP
from makemore.models import Model
from studies.harness.report.results import read_results, trials_frame

if TYPE_CHECKING:
    from studies.harness.report.judge.findings import Findings, ModelCheck

__all__ = ["examine_study", "make_report", "render_report", "trials_frame", "write_study_files"]


def write_study_files(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv, history.png, importances.png, parallel.png and slices.png."""
    # matplotlib takes 0.3 s to import.
    from studies.harness.report.figures.pictures import write_pictures

    trials_frame(study).to_csv(folder / "trials.csv", index=False)
    write_pictures(read_results(study), folder)


def examine_study(
    study: optuna.Study,
    corpus: Corpus | None,
    best_model: Model | None,
    kept_models: Iterable[MLP] = (),
) -> tuple[Findings, ModelCheck | None]:
    """Judge a study and check its models; takes about a second for the counting baselines.

    Args:
        study: a study of this project.
        corpus: the study's words; without them the model is not checked.
        best_model: of the winner; without it the check has no samples and no loss
            on unseen words.
        kept_models: the models that the study kept, best first, to estimate an ensemble.
    """
    from studies.harness.report.judge.ensemble import estimate_ensemble
    from studies.harness.report.judge.findings import MAX_WORDS, check_model, judge_study

    findings = judge_study(read_results(study))
    if corpus is None:
        return findings, None
    ensemble = estimate_ensemble(kept_models, first_words(corpus, *MAX_WORDS))
    check = dataclasses.replace(check_model(corpus, best_model), ensemble=ensemble)
    return dataclasses.replace(findings, gap=check.gap), check


def render_report(
    study: optuna.Study,
    findings: Findings,
    model_check: ModelCheck | None,
    context: dict[str, Any] | None = None,
) -> str:
    """Return the report as an HTML page.

    Args:
        study: the study that was judged.
        findings: from `examine_study`.
        model_check: from `examine_study`.
        context: facts that the study does not hold, each optional: script (the study's script,
            relative to the project), flags (of its command line: --names, --storage,
            --tracking-uri), store_flags (those that other scripts need to find the stores), again
            (the command that writes the page again), versions (name to version).
    """
    from studies.harness.report.page.page import build_page

    known = {"data": study.user_attrs.get("data"), "script": study.user_attrs.get("script")}
    given = {**{key: value for key, value in known.items() if value}, **(context or {})}
    return build_page(findings, model_check, given)


def make_report(
    study: optuna.Study,
    corpus: Corpus | None,
    best_model: Model | None,
    context: dict[str, Any] | None = None,
    kept_models: Iterable[MLP] = (),
) -> str:
    """Examine a study and return its report; see `examine_study` and `render_report`."""
    examined = examine_study(study, corpus, best_model, kept_models)
    return render_report(study, *examined, context)
