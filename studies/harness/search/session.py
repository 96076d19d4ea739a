"""The steps of a launch: open the stores, make the coordinator, train, end, print.

This module imports torch and optuna; `launch.run_study` imports it after its first line of output.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines import Engine, Envelope, make_engine, resolve_device
from makemore.errors import UserError
from makemore.model import check_memory, n_params
from makemore.model_class import check_model
from makemore.models import ModelClass
from studies.harness.cli import progress, terminal
from studies.harness.cli.args import GPU_SLOTS, StudyArgs, count_slots, launched_with
from studies.harness.cli.script import clean_stop, collect_as_usual, uninterrupted
from studies.harness.search.coordinator import Coordinator
from studies.harness.search.finish import finish_study
from studies.harness.search.queue import MAX_DUPLICATES, TrialQueue
from studies.harness.search.samplers.tpe import default_sampler
from studies.harness.search.spaces import Space, describe, envelope, largest_config, outside
from studies.harness.store.launches import Launch, requeue_dead
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS, check_folders, report_path
from studies.harness.store.study import format_range, model_name, open_study
from studies.harness.store.text import counted, without_password
from studies.harness.store.winner.follow_ups import summarize
from studies.harness.tracking.connection.connect import check_default_store, connect, is_default
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.repairs.recovery import recover
from studies.harness.tracking.runs import describe_data
from studies.harness.tracking.sending.tracker import Tracker
from studies.harness.tracking.views import experiment_tags

INTERRUPTED_WAIT = 2.0  # seconds; an interrupted launch waits no longer for MLflow


@dataclass
class Stores:
    """The open stores of a launch, and its engine.

    Attributes:
        client: MLflow client, or None for the default store, which opens while the study trains.
        model: class of the user's model; None for the MLP.
    """

    study: optuna.Study
    launch: Launch
    client: Any
    corpus: Corpus
    engine: Engine
    model: ModelClass | None


# ---- open the stores


def open_stores(
    args: StudyArgs,
    space: Space,
    base: Config,
    first: dict[str, Any] | None,
    pruner: BasePruner,
    ranges: dict[str, str],
    model: ModelClass | None,
) -> Stores:
    """Check everything, and only then open the study.

    A bad setting must not create a study, because the study would refuse the corrected setting.

    Args:
        space: the space with the ranges of --range.
        first: parameters of the first trial; left out if the space excludes them.
        ranges: --range by the name of the parameter, to be stored with a new study.
        model: class of the user's model; None for the MLP.
    """
    # The slots are the parallelism. On small tensors, more threads of torch wait for each other.
    torch.set_num_threads(1)
    check_folders(args.study)
    corpus = load_corpus(args.names)
    described = describe(space, base, first)
    if first is not None and (names := outside(space, base, first)):
        if not ranges:
            values = ", ".join(f"{name}={first[name]!r}" for name in names)
            raise UserError(f"the first trial has {values}, outside the range of the search space.")
        first = None
    largest = largest_config(space, base)
    if model is None:
        check_memory(n_params(largest, len(corpus.vocab)))
    else:
        check_model(model, largest, len(corpus.vocab))
    client = _reach_mlflow(args)
    engine = None
    try:
        with uninterrupted(in_script=args.from_script):
            engine = _start_engine(args, corpus, envelope(space, base), model)
        study = open_study(
            args.study,
            args.storage,
            space=described,
            base=base,
            corpus=corpus,
            seed=args.seed,
            pruner=pruner,
            launched_with=launched_with(args),
            first=first,
            ranges=ranges,
            model=model,
        )
        launch = Launch.begin(study)
    except BaseException:
        if engine is not None:
            engine.close()
        raise
    place = "Ray" if args.ray else f"the {resolve_device(args.device).type.upper()}"
    models = counted(engine.capacity, "trial")
    print(f"Training {models} at a time on {place}.", file=sys.stderr, flush=True)
    return Stores(study, launch, client, corpus, engine, model)


def _start_engine(
    args: StudyArgs, corpus: Corpus, largest: Envelope, model: ModelClass | None
) -> Engine:
    if args.ray is None:
        slots = count_slots(args.device, args.workers, args.trials, model)
        return make_engine(args.device, corpus, slots, largest, model)
    from makemore.engines.fleet.ray_hosts import ray_fleet

    return ray_fleet(args.ray, corpus, args.workers, largest, args.device, GPU_SLOTS)


def _reach_mlflow(args: StudyArgs) -> Any:
    """Return a client of the tracking store, or None for the default store."""
    if not is_default(args.tracking_uri):
        return connect(args.tracking_uri)
    check_default_store()
    return None


# ---- make the coordinator


def make_coordinator(
    args: StudyArgs,
    stores: Stores,
    space: Space,
    base: Config,
    make_sampler: Callable[[int], BaseSampler] | None,
    begun: float,
) -> Coordinator:
    """Start the tracker, requeue trials of crashed launches, and set up the loop.

    Args:
        begun: time.monotonic() at the start of the launch; --minutes counts from then.
    """
    study = stores.study
    tracker = _begin_tracking(args, stores)
    seed = study.user_attrs["seed"]
    queue = TrialQueue(
        study, space, base, stores.launch, args.trials, seed, make_sampler or default_sampler
    )
    return Coordinator(
        queue,
        stores.corpus,
        stores.engine,
        tracker,
        prune=args.prune,
        audit_pruning=args.audit_pruning,
        keep_models=args.keep_models,
        repeats=args.repeats,
        finish_best=args.finish_best,
        model=stores.model,
        deadline=math.inf if args.minutes is None else begun + 60 * args.minutes,
    )


def _begin_tracking(args: StudyArgs, stores: Stores) -> Tracker:
    study, launch, client = stores.study, stores.launch, stores.client
    dataset = describe_data(stores.corpus, args.names)
    tracker = Tracker(client, "", MLRUNS / "outbox" / args.study, launch.id, dataset)
    with exclusive(f"ask-{args.study}", study._storage):
        requeue_dead(study)
    attrs = study.user_attrs

    def open_store() -> None:
        tracker.client = client or connect(args.tracking_uri)
        tracker.experiment_id = get_experiment(tracker.client, args.study)
        for key, value in experiment_tags(sorted(attrs["space"]), int(time.time() * 1000)).items():
            tracker.client.set_experiment_tag(tracker.experiment_id, key, value)
        recover(tracker, study)
        if client is None:
            # The end of the study needs matplotlib. Its import takes half a second, so it runs
            # here, in the tracker's thread.
            import studies.harness.report.page.page  # noqa: F401
        collect_as_usual()  # the imports are done

    # Without the prefixes, a field of the base would look like a value of the best config, whose
    # loss is in the same row. Those are the tags winner.NAME.
    base = attrs["base"].items()
    fixed = {f"base.{name}": value for name, value in base if name not in attrs["space"]}
    ranges = {f"range.{name}": format_range(text) for name, text in attrs["space"].items()}
    params = {**fixed, **ranges, "study_seed": attrs["seed"]}
    storage = without_password(args.storage or "journal")
    tags = {"study": args.study, "launch": launch.id, "storage": storage}
    if attrs.get("model") is not None:
        tags["model"] = model_name(attrs["model"])
    tracker.begin(f"{args.study} {launch.id}", tags, params, open_store, background=client is None)
    return tracker


# ---- train, and end the launch


def train(
    args: StudyArgs,
    stores: Stores,
    coordinator: Coordinator,
    write_more: Callable[[optuna.Study, Path], None],
) -> int:
    """Run the coordinator, and write the end of the study. Returns how many runs were not sent."""
    max_steps = coordinator.queue.base.max_steps
    with clean_stop(coordinator.interrupt, in_script=args.from_script):
        try:
            with progress.live(stores.study, args.trials, max_steps, args.minutes) as on_event:
                coordinator.on_event = on_event
                coordinator.run()
        finally:
            stores.engine.close()
            unsent = _end_tracking(args, coordinator, write_more)
    return unsent


def _end_tracking(
    args: StudyArgs, coordinator: Coordinator, write_more: Callable[[optuna.Study, Path], None]
) -> int:
    """Write the report, close the parent run, and return how many runs were not sent."""
    tracker = coordinator.tracker
    # A process that lives on may begin another launch, so it waits until this one sends nothing.
    leaves = coordinator.interrupted and args.from_script
    tracker.wait_until_open(INTERRUPTED_WAIT if leaves else None)
    if coordinator.interrupted:
        tracker.finish_parent("KILLED")
        if leaves:
            tracker.close(patience=1.0, at_most=INTERRUPTED_WAIT)
        else:
            tracker.close(args.patience)
        # The next launch ends the open runs. Only files of finished trials are worth a message.
        return tracker.n_folders

    failed = sys.exc_info()[0] is not None
    try:
        if not failed:
            tracker.check()
            finish_study(args, coordinator, write_more)
    finally:
        tracker.finish_parent("FAILED" if failed else "FINISHED")
        unsent = tracker.close(args.patience)
    return unsent


# ---- print


def print_end(args: StudyArgs, coordinator: Coordinator, unsent: int, wall_s: float) -> None:
    """Print the best trials and the next commands; with --json also one JSON object, last."""
    if coordinator.queue.exhausted:
        print(
            f"The search space holds nothing new: the last {MAX_DUPLICATES} proposals were trained "
            "already.",
            file=sys.stderr,
        )
    outcome = _outcome(args, coordinator, wall_s)
    if args.from_script:  # a call from Python returns the study instead
        terminal.print_end(args, coordinator.queue.study, outcome)
    if unsent:
        terminal.print_not_sent(args, unsent, coordinator.tracker.last_error)
    if args.json:
        print(json.dumps(outcome))


def _outcome(args: StudyArgs, coordinator: Coordinator, wall_s: float) -> dict[str, Any]:
    trials = coordinator.queue.study.get_trials(deepcopy=False)
    # An interrupted launch writes no report.
    report = None if coordinator.interrupted else str(report_path(args.study))
    return {
        "study": args.study,
        **summarize(trials),
        "ended_now": coordinator.n_ended,
        "timed_out": coordinator.timed_out,
        "wall_s": round(wall_s, 3),
        "train_s": round(coordinator.train_s, 3),
        "slots": coordinator.engine.capacity,
        "report": report,
        "mlflow_experiment_id": coordinator.tracker.experiment_id,
        "mlflow_run_id": coordinator.tracker.parent_id,
    }
