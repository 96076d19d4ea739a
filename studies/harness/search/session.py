"""The steps of a launch after its stores are open: make the coordinator, train, end, print.

This module imports torch and optuna; `launch.run_study` imports it after its first line of output.
"""

from __future__ import annotations

import json
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler

from makemore.config import Config
from studies.harness.cli import progress, terminal
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import clean_stop, collect_as_usual
from studies.harness.search.finish import finish_study
from studies.harness.search.loop.coordinator import Coordinator
from studies.harness.search.loop.queue import MAX_DUPLICATES, TrialQueue
from studies.harness.search.opening import Stores
from studies.harness.search.samplers.tpe import default_sampler
from studies.harness.search.spaces import Space
from studies.harness.store.launches import requeue_dead
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS, report_path
from studies.harness.store.study import format_range, model_name
from studies.harness.store.text import without_password
from studies.harness.store.winner.follow_ups import summarize
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.repairs.recovery import recover
from studies.harness.tracking.runs import describe_data
from studies.harness.tracking.sending.tracker import Tracker
from studies.harness.tracking.views import experiment_tags

INTERRUPTED_WAIT = 2.0  # seconds; an interrupted launch waits no longer for MLflow


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
