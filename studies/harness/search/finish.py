"""What the end of a study writes for its parent run: table, pictures, report, and the note that MLflow shows."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from makemore.checkpoint import load_checkpoint
from makemore.model import MLP
from studies.harness.cli.commands import shell_command, store_flags
from studies.harness.store.paths import ROOT, report_path
from studies.harness.store.text import without_password
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.tracking.client import find_runs, versions

if TYPE_CHECKING:
    from studies.harness.cli.args import StudyArgs
    from studies.harness.search.coordinator import Coordinator

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


def finish_study(
    args: StudyArgs, coordinator: Coordinator, write_more: Callable[[optuna.Study, Path], None]
) -> dict[str, str]:
    """Put the files of the ended study into the parent run's folder; returns the run's tags."""
    from studies.harness.report.build import examine_study, render_report, write_study_files
    from studies.harness.report.page.note import NOTE, write_note

    study, tracker = coordinator.queue.study, coordinator.tracker
    context = report_context(args, study)
    context["command"] = without_password(
        shell_command(os.path.relpath(sys.argv[0], ROOT), sys.argv[1:])
    )
    findings, examined = examine_study(study, coordinator.corpus, best_model(coordinator))
    page = render_report(study, findings, examined, context)
    path = report_path(study.study_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")
    with tracker.parent_folder() as folder:
        write_study_files(study, folder)
        write_more(study, folder)
        (folder / "report.html").write_text(page, encoding="utf-8")
    return {NOTE: write_note(findings, context, tracker.experiment_id)}


def report_context(args: Any, study: optuna.Study) -> dict[str, Any]:
    """What the report says of the command lines around it."""
    path = args.names or study.user_attrs.get("names")
    names = ["--names", str(path)] if path else []
    again = shell_command("studies/report.py", [study.study_name, *names, *store_flags(args)])
    return {
        "flags": [*study.user_attrs.get("flags", []), *names, *store_flags(args)],
        "store_flags": store_flags(args),
        "retrain_flags": [*names, *store_flags(args, storage=False)],
        "again": without_password(again),
        "versions": versions(),
    }


def best_model(coordinator: Coordinator) -> MLP | None:
    """The model of the study's best trial: this launch's, or an earlier one's from MLflow."""
    best = next(iter(ranked(coordinator.queue.study.get_trials(deepcopy=False))), None)
    if best is None:
        return None
    if coordinator.best_model is not None and coordinator.best_model[0] == best.number:
        return coordinator.best_model[1]
    tracker = coordinator.tracker
    try:
        return load_best_model(coordinator.queue.study, tracker.client, tracker.experiment_id)[0]
    except (
        Exception
    ):  # a server that is away: the page then has no samples, and can be written again
        return None


def load_best_model(
    study: optuna.Study, client: Any, experiment_id: str | None
) -> tuple[MLP | None, str]:
    """The model of the trial of lowest dev loss from MLflow, or None and a sentence that says why not."""
    best = next(iter(ranked(study.get_trials(deepcopy=False))), None)
    if best is None:
        return None, "no trial has a dev loss."
    for run in find_runs(client, experiment_id, trial=best.number) if experiment_id else []:
        if not any(
            artifact.path == "model.safetensors"
            for artifact in client.list_artifacts(run.info.run_id)
        ):
            continue
        with tempfile.TemporaryDirectory() as folder:
            return load_checkpoint(
                client.download_artifacts(run.info.run_id, "model.safetensors", folder)
            ).model, ""
    return (
        None,
        f"MLflow holds no model of trial {best.number}, whose dev loss {dev_loss(best):.4f} is the lowest.",
    )
