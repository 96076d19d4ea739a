"""The flags of a study script: what they are, which are refused, and which a proposed command repeats."""

from __future__ import annotations

import math
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from makemore.engines import resolve_device
from studies.harness.cli import given_flags

GPU_SLOTS = 256  # models trained at once on a GPU unless --workers says otherwise
# Which study, how far, on which stores and machine: a proposed command says these itself, or leaves them to its caller.
NOT_PROPOSED = frozenset(
    "names study trials minutes steps storage tracking_uri device workers patience finish_best json".split()
)


@dataclass
class StudyArgs:
    """The flags that every study script has."""

    names: Path | None = None
    """File of words, one a line, UTF-8; the embedded names if not given."""
    trials: int = 32
    """Trials that the study shall have in the end; those it has already count."""
    minutes: float | None = None
    """Minutes that the search of this launch may take; what then runs waits for the next. No limit if not given."""
    steps: int = 5000
    """Optimizer steps of each trial."""
    workers: int | None = None
    """Models trained at once; the number of cores, or 256 on a GPU, if not given."""
    seed: int | None = None
    """Seed of the study: of its proposals and, with a trial's number, of that trial. 0 if not given."""
    study: str = "study"
    """Name of the study, and of its MLflow experiment."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI; the SQLite database in mlruns/ if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps; auto takes CUDA, then MPS, then the CPU."""
    prune: bool = True
    """Stop trials early whose dev loss lies behind the others' at the same step."""
    patience: float = 30.0
    """Seconds that the end of the study waits for an MLflow that does not answer."""
    repeats: int = 3
    """Further seeds that the three best trials are trained with at the end, to tell what a difference is worth."""
    finish_best: bool = False
    """Train the best trial to its end, after the search, if it was pruned."""
    keep_models: int = 50
    """How many of the best trials keep their checkpoint."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def check_args(args: StudyArgs) -> None:
    """Refuse numbers that make no sense.

    Raises:
        ValueError: names the flag; one sentence.
    """
    for name in ("trials", "steps", "workers", "keep_models", "repeats"):
        value, least = getattr(args, name), 0 if name in ("keep_models", "repeats") else 1
        if value is not None and value < least:
            raise ValueError(f"--{name.replace('_', '-')} must be at least {least}, but got {value}.")
    if args.minutes is not None and not 0 < args.minutes < math.inf:
        raise ValueError(f"--minutes must be greater than 0, but got {args.minutes}; None sets no limit.")
    if not args.patience >= 0:
        raise ValueError(f"--patience must be at least 0 seconds, but got {args.patience}.")
    if args.seed is not None and args.seed < 0:
        raise ValueError(f"--seed must be at least 0, but got {args.seed}.")


def count_slots(device: str, workers: int | None, models: int) -> int:
    """How many of so many models are trained at once: as many as there are cores, or GPU_SLOTS, unless told."""
    on_cpu = resolve_device(device).type == "cpu"
    return min(models, workers or (os.cpu_count() or 1 if on_cpu else GPU_SLOTS))


def launched_with(args: StudyArgs) -> dict[str, Any]:
    """How this launch was called, for the commands that a report proposes."""
    flags = ["--steps", str(args.steps), *given_flags(args, but=NOT_PROPOSED)]
    names = str(args.names.absolute()) if args.names else None
    return {"script": os.path.relpath(sys.argv[0], Path(__file__).parents[2]), "flags": flags, "names": names}
