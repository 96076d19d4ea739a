"""Inputs of the scripts that train configs again: their flags, the config file, its words."""

from __future__ import annotations

import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from makemore.cli import SWITCH
from makemore.config import Config, read_toml
from makemore.errors import UserError, check_output
from studies.harness.cli.args import OUTPUT, STORES
from studies.harness.store.paths import MLRUNS

if TYPE_CHECKING:
    from makemore.data import Corpus
    from makemore.models import ModelClass

TRAINING = Group("Training", sort_key=2)
MODEL = Group("Model", sort_key=3)


@dataclass
class TrainingArgs:
    """Flags of the scripts that train a config with several seeds and keep one model."""

    _: KW_ONLY
    model: Annotated[str | None, Parameter(group=TRAINING)] = None
    """FILE.py:CLASS of a model of your own. Default: the MLP."""
    seeds: Annotated[int, Parameter(group=TRAINING)] = 1
    """Number of seeds: the config's own, and others derived from it."""
    steps: Annotated[int | None, Parameter(group=TRAINING)] = None
    """Optimizer steps of each seed. Default: the config's own number."""
    names: Annotated[Path | None, Parameter(group=TRAINING)] = None
    """Text file with one word per line, UTF-8. Default: the embedded names."""
    allow_other_words: Annotated[bool, SWITCH, Parameter(group=TRAINING)] = False
    """Train even if the config was found on other words than --names."""
    workers: Annotated[int | None, Parameter(group=TRAINING)] = None
    """Models trained at once. Default: the number of cores, or 256 on each GPU."""
    device: Annotated[str, Parameter(group=TRAINING)] = "auto"
    """auto, cpu, cuda, cuda:0 or mps. auto takes CUDA, then MPS, then the CPU."""
    select: Annotated[Literal["median", "best"], Parameter(group=MODEL)] = "median"
    """Seed to save, by dev loss; best is biased low."""
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), group=MODEL)] = None
    """Checkpoint file of that seed. Default: mlruns/checkpoints/NAME.safetensors."""
    register: Annotated[bool, Parameter(group=MODEL)] = True
    """Register the model in MLflow as makemore-mlp, or as makemore-CLASS with --model."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""

    def check(self, name: str) -> Path:
        """Check the flags before the training; returns the checkpoint's path.

        Args:
            name: of the checkpoint's file, if --out is not given.

        Raises:
            UserError: a flag is out of range, or the checkpoint cannot be written.
        """
        out = self.out or MLRUNS / "checkpoints" / f"{name}.safetensors"
        check_output(out, "--out")
        if self.workers is not None and self.workers < 1:
            raise UserError(f"--workers must be at least 1, but got {self.workers}.")
        return out

    def load_model(self) -> ModelClass | None:
        """Return the class of --model; None without it.

        Raises:
            UserError: as `load_model_class`.
        """
        if self.model is None:
            return None
        from makemore.model_class import load_model_class  # loads torch, which takes seconds

        return load_model_class(self.model)


@dataclass(frozen=True)
class ConfigFile:
    """A config file that was read; `origin` is empty if the file has no [origin] table."""

    path: Path
    config: Config
    origin: dict[str, Any]


def read_config_file(path: Path, model: ModelClass | None = None) -> ConfigFile:
    """Read a config file.

    Args:
        path: of the file.
        model: class of the user's model; None for the MLP.

    Raises:
        UserError: as `read_toml` and `parse_model_config`, or origin is not a table.
    """
    from makemore.model_class import parse_model_config

    tables = read_toml(path)
    origin = tables.get("origin", {})
    if not isinstance(origin, dict):
        raise UserError(f"{path}: origin must be a table, but is {origin!r}; remove that line.")
    return ConfigFile(path, parse_model_config(path, tables, model), origin)


def check_words(file: ConfigFile, corpus: Corpus, args: TrainingArgs) -> None:
    """Refuse a config that was found on other words, or warn with --allow-other-words.

    Raises:
        UserError: the words differ, and the flag is not given.
    """
    found = file.origin.get("data_sha256")
    if found in (None, corpus.sha256):
        return
    used = str(args.names) if args.names else "the embedded names"
    difference = (
        f"the config {file.path} was found on the words of {file.origin.get('data', 'a file')} "
        f"(sha256 {str(found)[:12]}), not on {used} (sha256 {corpus.sha256[:12]})"
    )
    if not args.allow_other_words:
        raise UserError(
            f"{difference}; give that file with --names, "
            "or give --allow-other-words to train on these words."
        )
    print(f"Warning: {difference}; their losses cannot be compared.", file=sys.stderr)


def warn_of_teacher(file: ConfigFile) -> None:
    """Say that a config from a distilled model is now trained without the teacher."""
    teacher = file.origin.get("teacher")
    if isinstance(teacher, dict):
        print(
            f"Warning: {file.path} is the config of a model distilled from "
            f"{teacher.get('source')}; this training has no teacher, so its losses differ. "
            "experiments/distil.py trains with one.",
            file=sys.stderr,
        )
