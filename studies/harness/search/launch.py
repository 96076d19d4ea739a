"""One launch of a study: the steps of `run_study`, from the checks to the exit code."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.cli import INTERRUPTED
from makemore.config import Config
from makemore.data import load_corpus
from makemore.errors import UserError
from studies.harness.cli import terminal
from studies.harness.cli.args import (
    StudyArgs,
    announcement,
    check_args,
    given_ranges,
    script_of,
)
from studies.harness.cli.commands import shell_command
from studies.harness.cli.script import given_flags
from studies.harness.search.pruners import default_pruner
from studies.harness.search.spaces import describe, distributions, with_ranges
from studies.harness.store.paths import report_path
from studies.harness.store.study import (
    OtherSettings,
    check_same,
    find_study,
    study_settings,
    unused_name,
)
from studies.harness.store.text import check_study_name, without_password
from studies.harness.store.winner.follow_ups import is_complete, summarize
from studies.harness.tracking.repairs.sent import find_sent

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from makemore.models import ModelClass
    from studies.harness.search.spaces import Space

NOT_SENT = 3  # exit code: the study is complete, but MLflow does not have all of it


def run_study(
    args: StudyArgs,
    space: Space,
    base: Config,
    *,
    first: dict[str, Any] | None = None,
    make_sampler: Callable[[int], BaseSampler] | None = None,
    pruner: BasePruner | None = None,
    evaluations: int = 10,
    write_more: Callable[[Study, Path], None] = lambda study, folder: None,
    model: ModelClass | None = None,
) -> int:
    """Run a study to its total number of trials, and print the best ones. Returns the exit code.

    Args:
        space: (trial, base) -> Config; suggests the searched fields.
        base: the fixed fields. max_steps and eval_interval are replaced, from `args.steps`.
        first: parameters of the first trial; the sampler proposes the later ones.
        make_sampler: seed -> sampler; by default TPE.
        pruner: by default `default_pruner`.
        evaluations: evaluations of each trial, evenly spaced.
        write_more: writes further files of the ended study to a folder; they go to its MLflow run.
        model: class of your own model, see makemore/models.py; by default the MLP.

    Raises:
        UserError: a flag, a path or a store cannot be used.
    """
    begun = time.monotonic()
    check_args(args)
    check_study_name(args.study)
    _check_model(args, base, model)
    print(announcement(args), file=sys.stderr, flush=True)
    base = base.replace(max_steps=args.steps, eval_interval=max(1, args.steps // evaluations))
    with_ranges(space, base, given_ranges(args))  # refuses bad ranges before any store is opened
    study = find_study(args.study, args.storage)
    space, ranges = _apply_ranges(args, space, base, study)

    try:
        if study is not None and (outcome := _outcome_if_done(args, study, space, base, model)):
            return _end_at_once(args, study, outcome)

        # Only now, because torch takes seconds to import.
        from studies.harness.search import session
        from studies.harness.search.opening import open_stores

        chosen = pruner or default_pruner(base)
        stores = open_stores(args, space, base, first, chosen, ranges, model)
    except OtherSettings as error:
        raise UserError(_propose_new_study(args, error)) from None

    try:
        coordinator = session.make_coordinator(args, stores, space, base, make_sampler, begun)
        unsent = session.train(args, stores, coordinator, write_more)
    finally:
        stores.engine.close()  # also if the training did not begin
        stores.launch.end()

    session.print_end(args, coordinator, unsent, time.monotonic() - begun)
    if coordinator.interrupted:
        return INTERRUPTED
    return NOT_SENT if unsent else 0


def _check_model(args: StudyArgs, base: Config, model: ModelClass | None) -> None:
    """Check the base config and the flags of a study with or without a user's model.

    Raises:
        UserError: the base is not a config of the model, or --ray is given with a model.
    """
    if model is not None:
        from makemore.model_class import check_config_class
        from studies.harness.report.results import check_names

        own = check_config_class(model).model_fields.keys() - Config.model_fields.keys()
        check_names(own)
        if args.ray is not None:
            raise UserError("--ray trains the MLP only; leave it out for a model of your own.")
    if model is not None or type(base) is not Config:  # not for the MLP, because it loads torch
        from makemore.models import check_config

        check_config(base, model, "the base config")


# ---- --range


def _apply_ranges(
    args: StudyArgs, space: Space, base: Config, study: Study | None
) -> tuple[Space, dict[str, str]]:
    """Return the space with the ranges of --range, and these ranges.

    A study that exists keeps its ranges, so a later launch does not need to give them again.
    """
    stored = {} if study is None else study.user_attrs.get("ranges", {})
    known = distributions(space, base)
    kept = {name: text for name, text in stored.items() if name in known}
    ranges = {**kept, **given_ranges(args)}
    return with_ranges(space, base, ranges), ranges


def _propose_new_study(args: StudyArgs, error: OtherSettings) -> str:
    """Return the error's message, with the command that starts a new study if there is one."""
    script = script_of(args)
    if script is None:
        return str(error)
    name = unused_name(args.study, args.storage)
    flags = [without_password(flag) for flag in given_flags(args, exclude={"study"})]
    command = shell_command(script, ["--study", name, *flags])
    return f"{error.reason}; use the old settings to resume it, or start a new study: {command}"


# ---- a study that is complete already


def _outcome_if_done(
    args: StudyArgs, study: Study, space: Space, base: Config, model: ModelClass | None
) -> dict[str, Any] | None:
    """Return what --json prints, if this launch would train, send and write nothing new.

    Raises:
        OtherSettings: the study has its total, but was begun with other settings.
    """
    trials = study.get_trials(deepcopy=False)
    if not is_complete(trials, args.trials, args.repeats, args.finish_best):
        return None
    settings = study_settings(describe(space, base), base, load_corpus(args.names), model)
    check_same(study, settings, args.seed, type(base))
    if study.user_attrs.get("keep_models") != args.keep_models:
        return None
    report = report_path(args.study)
    ended = max(trial.datetime_complete.timestamp() for trial in trials if trial.datetime_complete)
    if not report.exists() or report.stat().st_mtime < ended:
        return None
    sent = find_sent(args.tracking_uri, args.study)
    if sent is None:
        return None
    return {
        "study": args.study,
        **summarize(trials),
        "ended_now": 0,
        "timed_out": False,
        "wall_s": 0.0,
        "train_s": 0.0,
        "slots": 0,
        "report": str(report),
        "mlflow_experiment_id": sent[0],
        "mlflow_run_id": sent[1],
    }


def _end_at_once(args: StudyArgs, study: Study, outcome: dict[str, Any]) -> int:
    """Print the end of a study, as a launch that trained it does. Returns the exit code."""
    if args.from_script:
        terminal.print_end(args, study, outcome)
    if args.json:
        print(json.dumps(outcome))
    return 0
