"""One launch of a study: the steps of `run_study`, from the checks to the exit code."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.cli import INTERRUPTED
from makemore.config import Config
from studies.harness.cli.args import StudyArgs, announcement, check_args
from studies.harness.search.pruners import default_pruner
from studies.harness.store.text import check_study_name

if TYPE_CHECKING:
    from optuna import Study
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

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
) -> int:
    """Run a study to its total number of trials, and print the best ones. Returns the exit code.

    Args:
        space: (trial, base) -> Config; suggests the searched fields.
        base: the fixed fields. max_steps and eval_interval are replaced, from `args.steps`.
        first: parameters of the first trial; the sampler proposes the later ones.
        make_sampler: seed -> sampler; by default TPE.
        pruner: by default the median pruner.
        evaluations: evaluations of each trial, evenly spaced.
        write_more: writes further files of the ended study to a folder; they go to its MLflow run.

    Raises:
        UserError: a flag, a path or a store cannot be used.
    """
    begun = time.monotonic()
    check_args(args)
    check_study_name(args.study)
    print(announcement(args), file=sys.stderr, flush=True)

    # After the first line of output, because torch and optuna take seconds to import.
    from studies.harness.search import session

    base = base.replace(max_steps=args.steps, eval_interval=max(1, args.steps // evaluations))
    stores = session.open_stores(args, space, base, first, pruner or default_pruner())
    try:
        coordinator = session.make_coordinator(args, stores, space, base, make_sampler, begun)
        unsent = session.train(args, stores, coordinator, write_more)
    finally:
        stores.launch.end()

    session.print_end(args, coordinator, unsent, time.monotonic() - begun)
    if coordinator.interrupted:
        return INTERRUPTED
    return NOT_SENT if unsent else 0
