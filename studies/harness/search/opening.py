"""The start of a launch: check the flags and the space, then open the stores and the engine.

This module imports torch and optuna; `launch.run_study` imports it after its first line of output.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

import optuna
import torch
from optuna.pruners import BasePruner

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines import Engine, Envelope, make_engine, resolve_device
from makemore.errors import UserError
from makemore.model import check_memory, n_params
from makemore.model_class import check_model
from makemore.models import ModelClass
from studies.harness.cli.args import GPU_SLOTS, StudyArgs, count_slots, launched_with
from studies.harness.cli.script import uninterrupted
from studies.harness.search.spaces import Space, describe, envelope, largest_config, outside
from studies.harness.store.launches import Launch
from studies.harness.store.paths import check_folders
from studies.harness.store.study import open_study
from studies.harness.store.text import counted
from studies.harness.tracking.connection.connect import check_default_store, connect, is_default


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
