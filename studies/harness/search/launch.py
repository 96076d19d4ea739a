"""One launch of a study script: its flags, its set-up, its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import optuna
import torch
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler
from optuna.trial import TrialState

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines import make_engine
from studies.harness.cli import progress, terminal
from studies.harness.cli.args import StudyArgs, check_args, count_slots, launched_with
from studies.harness.search.coordinator import Coordinator
from studies.harness.search.finish import finish_study
from studies.harness.search.pruners import default_pruner
from studies.harness.search.queue import MAX_DUPLICATES, TrialQueue
from studies.harness.search.samplers import default_sampler
from studies.harness.search.spaces import Space, describe, envelope
from studies.harness.store.launches import Launch, requeue_dead
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import format_range, open_study
from studies.harness.store.text import without_password
from studies.harness.store.trials import counts, dev_loss, ranked
from studies.harness.tracking.client import check_default_store, connect, get_experiment, is_default
from studies.harness.tracking.recovery import recover
from studies.harness.tracking.runs import describe_data
from studies.harness.tracking.tracker import Tracker
from studies.harness.tracking.views import experiment_tags

NOT_SENT = 3  # exit code: the study is complete, but MLflow does not have all of it


def run_study(
    args: StudyArgs,
    space: Space,
    base: Config,
    *,
    first: dict[str, Any] | None = None,
    make_sampler: Callable[[int], BaseSampler] = default_sampler,
    pruner: BasePruner | None = None,
    evaluations: int = 10,
    write_more: Callable[[optuna.Study, Path], None] = lambda study, folder: None,
) -> int:
    """Run a study to its total of trials, and print what came of it. Returns the exit code.

    Args:
        base: the config whose fields the space replaces; its max_steps is `args.steps`.
        first: parameters to try before the sampler proposes any.
        evaluations: of each trial, evenly spaced.
        write_more: writes further files of the ended study to a folder, from which they go to its MLflow run.

    Raises:
        UserError: a flag, a path or a store is unusable; one sentence.
    """
    begun = time.monotonic()
    check_args(args)
    torch.set_num_threads(
        1
    )  # the slots are the parallelism; on small tensors further threads only wait for each other
    base = base.replace(max_steps=args.steps, eval_interval=max(1, args.steps // evaluations))
    corpus = load_corpus(args.names)
    slots = count_slots(args.device, args.workers, args.trials)
    client = _reach_mlflow(
        args
    )  # before the study is made: a wrong address must not leave a study behind
    settings: dict[str, Any] = {
        "space": describe(space, base),
        "base": base,
        "corpus": corpus,
        "seed": args.seed,
        "first": first,
    }
    settings |= {"pruner": pruner or default_pruner(), "launched_with": launched_with(args)}
    study = open_study(args.study, args.storage, **settings)
    engine = make_engine(args.device, corpus, slots, envelope(space, base))
    launch = Launch.begin(study)
    try:
        tracker = _begin_tracking(args, client, study, launch, corpus)
        queue = TrialQueue(
            study, space, base, launch, args.trials, study.user_attrs["seed"], make_sampler
        )
        coordinator = Coordinator(
            queue, corpus, engine, tracker, args.prune, args.keep_models, args.repeats
        )
        coordinator.finish_best = args.finish_best
        if args.minutes is not None:
            coordinator.deadline = begun + 60 * args.minutes
        with _signals(coordinator):
            try:
                with progress.live(
                    study, args.trials, base.max_steps, args.minutes
                ) as coordinator.on_event:
                    coordinator.run()
            finally:
                engine.close()
                left = _end_tracking(args, coordinator, write_more)
    finally:
        launch.end()
    if queue.exhausted:
        print(
            f"The search space holds nothing new: {MAX_DUPLICATES} proposals in a row were trained already.",
            file=sys.stderr,
        )
    outcome = _outcome(args, study, tracker, coordinator, time.monotonic() - begun)
    terminal.print_end(args, study, outcome)
    if left:
        terminal.print_not_sent(args, left, tracker.last_error)
    if args.json:
        print(json.dumps(outcome))
    return 130 if coordinator.interrupted else NOT_SENT if left else 0


def _reach_mlflow(args: StudyArgs) -> Any:
    """A client of the tracking store, or None for the default one, which is opened beside the training."""
    if not is_default(args.tracking_uri):
        return connect(args.tracking_uri)
    check_default_store()
    return None


def _begin_tracking(
    args: StudyArgs, client: Any, study: optuna.Study, launch: Launch, corpus: Corpus
) -> Tracker:
    tracker = Tracker(
        client, "", MLRUNS / "outbox" / args.study, launch.id, describe_data(corpus, args.names)
    )
    with exclusive(f"ask-{args.study}"):
        requeue_dead(study)
    attrs = study.user_attrs

    def open_store() -> None:
        tracker.client = client or connect(args.tracking_uri)
        tracker.experiment_id = get_experiment(tracker.client, args.study)
        for key, value in experiment_tags(sorted(attrs["space"]), int(time.time() * 1000)).items():
            tracker.client.set_experiment_tag(tracker.experiment_id, key, value)
        recover(tracker, study)
        if client is None:
            import studies.harness.report.page.page  # noqa: F401  # matplotlib, for the end; half a second

    ranges = {f"space.{name}": format_range(text) for name, text in attrs["space"].items()}
    params = {**attrs["base"], **ranges, "study_seed": attrs["seed"]}
    tags = {
        "study": args.study,
        "launch": launch.id,
        "storage": without_password(args.storage or "journal"),
    }
    tracker.begin(f"{args.study} {launch.id}", tags, params, open_store, background=client is None)
    return tracker


def _end_tracking(
    args: StudyArgs, coordinator: Coordinator, write_more: Callable[[optuna.Study, Path], None]
) -> int:
    """Send what is left and close the parent run; returns how many runs could not be sent."""
    tracker = coordinator.tracker
    tracker.wait_until_open(2.0 if coordinator.interrupted else None)
    if coordinator.interrupted:
        tracker.finish_parent("KILLED")
        return tracker.close(patience=1.0, at_most=2.0)
    failed = sys.exc_info()[0] is not None
    try:
        if not failed:
            tracker.check()
            tracker.parent_tags = finish_study(args, coordinator, write_more)
    finally:
        tracker.finish_parent("FAILED" if failed else "FINISHED")
        left = tracker.close(args.patience)
    return left


def _outcome(
    args: StudyArgs, study: optuna.Study, tracker: Tracker, coordinator: Coordinator, wall_s: float
) -> dict[str, Any]:
    trials = study.get_trials(deepcopy=False)
    states = [trial.state for trial in trials if counts(trial)]
    best = next(iter(ranked(trials)), None)
    return {
        "study": args.study,
        "trials": sum(counts(trial) for trial in trials),
        "complete": states.count(TrialState.COMPLETE),
        "pruned": states.count(TrialState.PRUNED),
        "failed": states.count(TrialState.FAIL),
        "best_trial": best.number if best else None,
        "best_dev_loss": dev_loss(best) if best else None,
        "best_params": best.params if best else None,
        "timed_out": coordinator.timed_out,
        "wall_s": round(wall_s, 3),
        "train_s": round(coordinator.train_s, 3),
        "mlflow_experiment_id": tracker.experiment_id,
        "mlflow_run_id": tracker.parent_id,
    }


@contextmanager
def _signals(coordinator: Coordinator) -> Iterator[None]:
    """The first SIGINT or SIGTERM ends the study cleanly, the second at once."""

    def stop(number: int, frame: object) -> None:
        for signum in signums:
            signal.signal(signum, lambda *_: os._exit(130))
        coordinator.interrupt()

    signums = (signal.SIGINT, signal.SIGTERM)
    if (
        threading.current_thread() is not threading.main_thread()
    ):  # Python delivers signals to the main thread only
        yield
        return
    before = [signal.signal(signum, stop) for signum in signums]
    try:
        yield
    finally:
        for signum, handler in zip(signums, before, strict=True):
            # After an interruption only the interpreter's own end is left, which takes a second and must not fail.
            signal.signal(signum, signal.SIG_IGN if coordinator.interrupted else handler)
