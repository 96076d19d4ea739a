"""The end of a study: its files, pictures, report and MLflow note."""

from __future__ import annotations

import json
import shlex
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import optuna

from makemore.checkpoint import load_checkpoint
from makemore.data import Corpus, load_corpus
from makemore.errors import UserError, writing
from makemore.model import MLP
from makemore.models import Model, ModelClass
from studies.harness.cli.args import script_of
from studies.harness.cli.commands import model_flags, shell_command, store_flags
from studies.harness.store.paths import report_path
from studies.harness.store.study import free_name
from studies.harness.store.text import without_password
from studies.harness.store.winner.noise import confirmed_means
from studies.harness.store.winner.winner import find_winner
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs
from studies.harness.tracking.models import CHECKPOINT, download_model, kept_models
from studies.harness.tracking.runs import (
    BEST_FILE,
    CONFIRMED_FILE,
    NOTE_FILE,
    versions,
)

if TYPE_CHECKING:
    from studies.harness.cli.args import StudyArgs
    from studies.harness.report.judge.findings import Findings
    from studies.harness.search.loop.coordinator import Coordinator


def finish_study(
    args: StudyArgs, coordinator: Coordinator, write_more: Callable[[optuna.Study, Path], None]
) -> None:
    """Write the report, and the parent run's files and note.

    Args:
        write_more: writes further files to the folder that becomes the parent run's artifacts.
    """
    from studies.harness.report.build import examine_study, render_report, write_study_files
    from studies.harness.report.page.note import write_note

    study = coordinator.queue.study
    tracker = coordinator.tracker
    context = report_context(args, study)
    script = script_of(args)
    if script is not None:
        context["command"] = without_password(shell_command(script, sys.argv[1:]))

    findings, examined = examine_study(
        study, coordinator.corpus, winning_model(coordinator), _models_at_the_end(coordinator)
    )
    page = render_report(study, findings, examined, context)
    path = report_path(study.study_name)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")

    with tracker.parent_folder() as folder:
        write_study_files(study, folder)
        write_more(study, folder)
        (folder / "report.html").write_text(page, encoding="utf-8")
        note = write_note(findings, context, tracker.experiment_id)
        (folder / NOTE_FILE).write_text(note, encoding="utf-8")
        _write_winner(findings, folder)
    winner = findings.winner
    study.set_user_attr("winner", winner.number if winner else None)
    estimate = examined.ensemble if examined else None
    study.set_user_attr("ensemble", estimate.summary() if estimate else None)


def _write_winner(findings: Findings, folder: Path) -> None:
    """Write the winner and the means over seed repeats, for the tags and metrics in MLflow."""
    winner = findings.winner
    values: dict[str, Any] = {}
    if winner is not None:
        values = {"trial": winner.number, "dev_loss": winner.own, **winner.trial.params}
        if winner.group is not None:
            values["confirmed_dev_loss"] = winner.loss_text
    groups = findings.noise.groups if findings.noise else ()
    confirmed = {
        "at": time.time(),
        "winner": winner.number if winner else None,
        "means": {group.trial: confirmed_means(group) for group in groups},
    }
    for name, content in ((BEST_FILE, values), (CONFIRMED_FILE, confirmed)):
        (folder / name).write_text(json.dumps(content, indent=2), encoding="utf-8")


def report_context(args: Any, study: optuna.Study) -> dict[str, Any]:
    """Return the flags, commands and versions that the report shows.

    Args:
        args: flags of the running script; names, storage and tracking_uri are read.
    """
    from studies.harness.report.page.next_steps import SUFFIXES  # loads scipy

    name = study.study_name
    path = args.names or study.user_attrs.get("names")
    names = ["--names", str(path)] if path else []
    model = model_flags(study)
    again = shell_command(
        "studies/report.py", [study.study_name, *model, *names, *store_flags(args)]
    )
    return {
        "flags": [*study.user_attrs.get("flags", []), *names, *store_flags(args)],
        "store_flags": store_flags(args),
        "retrain_flags": [*model, *names, *store_flags(args, storage=False)],
        "again": without_password(again),
        "new_names": {suffix: free_name(name + suffix, study, args.storage) for suffix in SUFFIXES},
        "versions": versions(),
    }


def winning_model(coordinator: Coordinator) -> Model | None:
    """Return the model of the study's winner, from the outbox or else from MLflow."""
    study = coordinator.queue.study
    winner = find_winner(study.get_trials(deepcopy=False))
    if winner is None:
        return None
    tracker = coordinator.tracker
    try:
        for folder in tracker.outbox.glob(f"{winner.number:05d}-*"):
            return load_checkpoint(folder / CHECKPOINT, coordinator.model).model
    except (OSError, UserError):
        pass  # it has no model, or the tracker has just sent it
    try:
        found = load_winning_model(study, tracker.client, tracker.experiment_id, coordinator.model)
        return found[0]
    except Exception:
        # An unreachable server: the report has no samples then, and can be written again later.
        return None


def _models_at_the_end(coordinator: Coordinator) -> Iterator[MLP]:
    """Yield the models that the study kept, best first, as far as they can be read.

    Ensembles have MLPs only, so there are none of a user's model.
    """
    if coordinator.model is not None:
        return
    tracker = coordinator.tracker
    study = coordinator.queue.study
    try:
        for _, model in kept_models(study, tracker.client, tracker.experiment_id, tracker.outbox):
            yield model
    except Exception:
        # An unreachable server or a damaged file: the report's estimate has fewer models then.
        return


def load_winning_model(
    study: optuna.Study, client: Any, experiment_id: str | None, model: ModelClass | None = None
) -> tuple[Model | None, str]:
    """Load the model of the study's winner from MLflow.

    Args:
        study: the study.
        client: an MlflowClient.
        experiment_id: of the study; None if MLflow does not have it.
        model: class of the user's model; None for the MLP.

    Returns:
        The model, or None and a sentence that gives the reason.
    """
    winner = find_winner(study.get_trials(deepcopy=False))
    if winner is None:
        return None, "no trial has a dev loss."
    runs = find_runs(client, experiment_id, trial=winner.number) if experiment_id else []
    for run in runs:
        if (found := download_model(client, run, model)) is not None:
            return found, ""
    return None, f"MLflow holds no model of trial {winner.number}, the winner."


# ---- the report of a study that has ended


def write_again(
    args: Any, study: optuna.Study, path: Path, model_class: ModelClass | None = None
) -> str:
    """Write the report of a study again, from its stores.

    Args:
        args: names, storage and tracking_uri are read.
        study: the study.
        path: of the page.
        model_class: of the study's models; None for the MLP, or if it is not known.

    Returns:
        A sentence that says what the report lacks and why; empty if it has everything.

    Raises:
        UserError: the words are not the study's, MLflow does not answer, or the page cannot be
            written.
    """
    from studies.harness.report.build import make_report

    corpus = _load_corpus(args, study)
    client = connect(args.tracking_uri)
    experiment = client.get_experiment_by_name(study.study_name)
    experiment_id = experiment.experiment_id if experiment else None
    source = study.user_attrs.get("model")
    if source is not None and model_class is None:
        model, why = None, f"it needs the model's class; give --model {shlex.quote(source)}."
    else:
        model, why = load_winning_model(study, client, experiment_id, model_class)
    # Ensembles have MLPs only.
    kept = () if source is not None else kept_models(study, client, experiment_id)
    models = (model for _, model in kept)
    page = make_report(study, corpus, model, report_context(args, study), models)
    with writing(path, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")

    if corpus is None:
        data = study.user_attrs.get("data")
        missing = "counting baselines and no samples"
        return f"The report has no {missing}; give --names the path of {data}."
    if model is None:
        return f"The report has no samples and no loss on unseen words: {why}"
    return ""


def _load_corpus(args: Any, study: optuna.Study) -> Corpus | None:
    """Return the study's words; None if they are not the embedded names and no names are given.

    Raises:
        UserError: the file of --names is not the study's.
    """
    corpus = load_corpus(args.names)
    if corpus.sha256 == study.user_attrs.get("data_sha256"):
        return corpus
    if args.names is None:
        return None
    data = study.user_attrs.get("data")
    raise UserError(
        f"{args.names}: study {study.study_name!r} was made on other words; give --names the path "
        f"of {data}, or leave it out for the embedded names."
    )
