"""The flags of every study script, and their checks."""

from __future__ import annotations

import math
import os
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from cyclopts import Group, Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError
from studies.harness.cli.script import given_flags
from studies.harness.store.paths import ROOT
from studies.harness.store.text import counted

if TYPE_CHECKING:
    from makemore.models import ModelClass

# Models trained at once on a GPU unless --workers sets another number.
GPU_SLOTS = 256
GPU_THREADS = 4  # of a user's model: each has a thread, and Python runs one thread at a time

# Groups of flags in --help, in this order.
STUDY = Group("Study", sort_key=2)
BUDGET = Group("Budget", sort_key=3)
STORES = Group("Stores", sort_key=4)
OUTPUT = Group("Output", sort_key=5)

# A proposed command sets these flags itself, or they depend on the machine it runs on.
NOT_PROPOSED = frozenset(
    "names study trials minutes steps storage tracking_uri device workers ray patience finish_best "
    "json".split()
)


# Files that run another program: `python -m pytest` and notebooks.
LAUNCHERS = ("__main__.py", "ipykernel_launcher.py", "colab_kernel_launcher.py")


def running_script() -> str | None:
    """Return the path of the running script, relative to the project's folder.

    Returns:
        None in a notebook, in `python -c` and in an interactive session.
    """
    path = Path(sys.argv[0])
    if path.suffix != ".py" or path.name in LAUNCHERS:
        return None
    return os.path.relpath(path, ROOT)


def script_name() -> str:
    """Return the default name of a study: the name of the running script's file, without .py."""
    stem = Path(running_script() or "").stem
    return stem if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}", stem) else "study"


@dataclass(kw_only=True)
class StudyArgs:
    """The flags of every study script."""

    from_script: ClassVar[bool] = True
    """Whether a script's command line made these arguments, and not a call from Python."""

    study: Annotated[str, Parameter(group=STUDY)] = field(default_factory=script_name)
    """Name of the study and of its MLflow experiment. Default: the name of the script."""
    names: Annotated[Path | None, Parameter(group=STUDY)] = None
    """Text file with one word per line, UTF-8. Default: the embedded names."""
    seed: Annotated[int | None, Parameter(group=STUDY)] = None
    """Seed of the study. Default: 0, or the stored one of a study that exists."""
    prune: Annotated[bool, Parameter(group=STUDY)] = True
    """Stop trials early if other trials have lower dev losses at the same step."""
    audit_pruning: Annotated[float, Parameter(group=STUDY)] = 0.05
    """Share of the trials to prune that train to their end, which measures the pruner.
    0.05 adds at most 5% of the steps of a study without pruning; 0 turns it off."""
    repeats: Annotated[int | None, Parameter(group=STUDY)] = None
    """Most seed repeats of a config, 0 or at least 2; they confirm the winner. The best 3 to 10
    configs get 2, then those still tied get more. Default: 5, in about 15% of the steps, or 6
    trainings if that is more."""
    range: Annotated[tuple[str, ...], Parameter(group=STUDY, negative=(), show_default=False)] = ()
    """NAME=LOW:HIGH, or NAME=A,B,C for choices: replaces a range of the script. Repeatable."""
    finish_best: Annotated[bool, SWITCH, Parameter(group=STUDY)] = False
    """If the best trial was pruned, train it to its last step after the search."""
    trials: Annotated[int, Parameter(group=BUDGET)] = 32
    """Total trials of the study, earlier launches included."""
    steps: Annotated[int, Parameter(group=BUDGET)] = 5000
    """Optimizer steps of each trial."""
    minutes: Annotated[float | None, Parameter(group=BUDGET)] = None
    """Time limit of the search in minutes; seed repeats run after it. Default: none."""
    workers: Annotated[int | None, Parameter(group=BUDGET)] = None
    """Models trained at once. Default: the number of cores, or 256 on each GPU. With --ray, the
    number on each node or GPU."""
    ray: Annotated[str | None, Parameter(group=BUDGET)] = None
    """Address HOST:PORT of a Ray cluster, to train on all its nodes, auto for the cluster of this
    machine, or local to start one here. Default: train without Ray."""
    device: Annotated[str, Parameter(group=BUDGET)] = "auto"
    """auto, cpu, cuda, cuda:0 or mps. auto takes CUDA, then MPS, then the CPU."""
    storage: Annotated[str | None, Parameter(group=STORES)] = None
    """Optuna URL or path of a journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    keep_models: Annotated[int, Parameter(group=STORES)] = 50
    """Number of best trials that keep their checkpoint."""
    patience: Annotated[float, Parameter(group=STORES)] = 30.0
    """Seconds to wait at the end for an MLflow that does not answer."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""


def script_of(args: StudyArgs) -> str | None:
    """Return the script that resumes the study; see `running_script`. None for Python calls."""
    return running_script() if args.from_script else None


def check_args(args: StudyArgs) -> None:
    """Check that every number is in its range.

    Raises:
        UserError: a number is out of range; names the flag.
    """
    for name in ("trials", "steps", "workers", "keep_models", "repeats"):
        value = getattr(args, name)
        least = 0 if name in ("keep_models", "repeats") else 1
        if value is not None and value < least:
            flag = f"--{name.replace('_', '-')}"
            raise UserError(f"{flag} must be at least {least}, but got {value}.")
    if args.repeats == 1:
        raise UserError(
            "--repeats must be 0 or at least 2, but got 1: one seed repeat gives no noise."
        )
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise UserError(
            f"--minutes must be greater than 0, but got {args.minutes}; leave it out for no limit."
        )
    if not 0 <= args.audit_pruning <= 1:
        raise UserError(f"--audit-pruning must be from 0 to 1, but got {args.audit_pruning}.")
    if not args.patience >= 0:
        raise UserError(f"--patience must be at least 0 seconds, but got {args.patience}.")
    if args.seed is not None and args.seed < 0:
        raise UserError(f"--seed must be at least 0, but got {args.seed}.")
    given_ranges(args)


def given_ranges(args: StudyArgs) -> dict[str, str]:
    """Return the ranges of --range: LOW:HIGH or A,B,C by the name of the parameter.

    Raises:
        UserError: a range has no name or no value, or a parameter has two ranges.
    """
    ranges: dict[str, str] = {}
    for given in args.range:
        name, equals, text = given.partition("=")
        if not (name and equals and text):
            raise UserError(
                f"--range must be NAME=LOW:HIGH, or NAME=A,B,C for choices, but got {given!r}."
            )
        if name in ranges:
            raise UserError(f"--range names {name} twice; give one range for each parameter.")
        ranges[name] = text
    return ranges


def count_slots(
    device: str, workers: int | None, models: int, model: ModelClass | None = None
) -> int:
    """Return how many of `models` models are trained at once on a device.

    Args:
        device, workers: the values of --device and --workers.
        models: number of models to train.
        model: class of the user's model; None for the MLP.
    """
    from makemore.engines import devices

    if workers is None:
        used = devices(device)
        on_cpu = used[0].type == "cpu"
        gpu_slots = GPU_SLOTS if model is None else GPU_THREADS
        workers = (os.cpu_count() or 1) if on_cpu else gpu_slots * len(used)
    return min(models, workers)


def announcement(args: StudyArgs) -> str:
    """Return the first line of output of a study: its name and its budget."""
    trials = f"{counted(args.trials, 'trial')} of {counted(args.steps, 'step')}"
    if args.minutes is None:
        return f"Study {args.study}: {trials}."
    return f"Study {args.study}: {args.minutes:g} minutes, at most {trials}."


def launched_with(args: StudyArgs) -> dict[str, Any]:
    """Return the script, the flags and the names of this launch, for commands in the report."""
    flags = ["--steps", str(args.steps), *given_flags(args, exclude=NOT_PROPOSED)]
    names = str(args.names.absolute()) if args.names else None
    return {"script": script_of(args), "flags": flags, "names": names}
