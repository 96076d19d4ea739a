"""Train an exported config again, with one or more seeds, evaluate it, and register the model.

The first seed is the config's own. With the config's own number of steps it reproduces the
exported trial's dev loss. The test split is read here and nowhere else: once per run, after all
training, and nothing is chosen by it.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import sys
import time
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from cyclopts import Group, Parameter

from makemore.cli import FAILED, SWITCH
from makemore.config import Config, parse_config, read_toml
from makemore.errors import UserError, check_output, writing
from makemore.words import read_words, split_words
from studies.harness.cli.args import OUTPUT, STORES, count_slots
from studies.harness.cli.script import run_script
from studies.harness.store.paths import MLRUNS

if TYPE_CHECKING:
    from experiments.retraining.results import Outcome
    from makemore.data import Corpus
    from makemore.engines import TrainResult

N_SAMPLES = 20

TRAINING = Group("Training", sort_key=2)
MODEL = Group("Model", sort_key=3)


@dataclass
class Args:
    """Train a config again with one or more seeds, evaluate it, and register the model."""

    file: Path
    """TOML file with a [config] table, for example from experiments/export.py."""
    _: KW_ONLY
    seeds: Annotated[int, Parameter(group=TRAINING)] = 1
    """Number of seeds: the config's own, and others derived from it."""
    steps: Annotated[int | None, Parameter(group=TRAINING)] = None
    """Optimizer steps of each seed. Default: the config's own number."""
    against: Annotated[Path | None, Parameter(group=TRAINING)] = None
    """Second config, trained with as many seeds and compared on the test split."""
    on: Annotated[Literal["train", "train+dev"], Parameter(group=TRAINING)] = "train"
    """Words to train on; train+dev measures no dev loss."""
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
    """Register the model in MLflow as makemore-mlp."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""


@dataclass(frozen=True)
class ConfigFile:
    """A config file that was read; `origin` is empty if the file has no [origin] table."""

    path: Path
    config: Config
    origin: dict[str, Any]


def main(args: Args) -> int:
    """Train, evaluate, save, report and log. Returns the exit code."""
    began = time.time()
    files = [_read(path) for path in (args.file, args.against) if path is not None]
    out = args.out or MLRUNS / "checkpoints" / f"{args.file.stem}.safetensors"
    check_output(out, "--out")
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, but got {args.workers}.")

    from experiments.retraining.evaluation import join_dev
    from experiments.retraining.seeds import make_configs
    from experiments.retraining.tracking import EXPERIMENT
    from makemore.data import load_corpus
    from makemore.engines import Diverged, EngineFailed
    from studies.harness.tracking.connection.connect import connect
    from studies.harness.tracking.connection.find import get_experiment

    configs = []
    for file in files:
        configs += make_configs(file.config, args.seeds, args.steps, args.on)
    corpus = load_corpus(args.names)
    for file in files:
        _check_words(file, corpus, args)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, EXPERIMENT)

    trained_on = corpus if args.on == "train" else join_dev(corpus)
    try:
        results = _train(args, trained_on, configs)
    except (Diverged, EngineFailed, MemoryError) as error:
        print(str(error) or "Out of memory; lower --workers.", file=sys.stderr)
        return FAILED

    outcome = _evaluate(args, files, corpus, trained_on, results, out, began)
    return _finish(args, client, experiment_id, outcome)


def _read(path: Path) -> ConfigFile:
    """Read a config file.

    Raises:
        UserError: as `read_toml` and `parse_config`, or origin is not a table.
    """
    tables = read_toml(path)
    origin = tables.get("origin", {})
    if not isinstance(origin, dict):
        raise UserError(f"{path}: origin must be a table, but is {origin!r}; remove that line.")
    return ConfigFile(path, parse_config(tables["config"], str(path)), origin)


def _check_words(file: ConfigFile, corpus: Corpus, args: Args) -> None:
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


def _train(args: Args, corpus: Corpus, configs: list[Config]) -> list[TrainResult]:
    """Train all configs at the same time."""
    from experiments.retraining.seeds import train_all
    from makemore.engines import Envelope, make_engine

    slots = count_slots(args.device, args.workers, len(configs))
    watch = "dev_loss" if args.on == "train" else "minibatch_loss"
    with closing(make_engine(args.device, corpus, slots, Envelope.around(*configs))) as engine:
        return train_all(engine, configs, watch=watch)


def _evaluate(
    args: Args,
    files: list[ConfigFile],
    corpus: Corpus,
    trained_on: Corpus,
    results: list[TrainResult],
    out: Path,
    began: float,
) -> Outcome:
    """Evaluate the results, on the test split too, and save the selected seed's model."""
    import numpy as np

    from experiments.retraining.comparison import compare
    from experiments.retraining.evaluation import baselines, evaluate_seeds
    from experiments.retraining.results import Outcome, Retraining
    from makemore.checkpoint import save_checkpoint
    from makemore.sampling import sample_words
    from studies.harness.tracking.runs import describe_data

    test = split_words(read_words(args.names)).test  # the only place that reads the test split
    evaluated = evaluate_seeds(results, trained_on, args.on, test)
    seeds = evaluated[: args.seeds]
    rival_seeds = evaluated[args.seeds :]

    names = _config_names(files)
    dataset = describe_data(corpus, args.names)
    first = files[0]
    retraining = Retraining(
        names[0], first.config, first.origin, dataset, seeds, args.on, args.select
    )
    selected = retraining.selected
    with writing(out, "--out"):
        save_checkpoint(
            out,
            selected.model,
            corpus.vocab,
            losses=selected.losses,
            origin=first.origin,
            corpus=dataset,
            trained_on=args.on,
        )
    samples = sample_words(selected.model, corpus.vocab, N_SAMPLES, seed=selected.config.seed)

    rival = None
    difference = None
    if rival_seeds:
        rival = (names[1], rival_seeds)
        costs = np.stack([seed.word_costs for seed in seeds])
        rival_costs = np.stack([seed.word_costs for seed in rival_seeds])
        lengths = np.array([len(word) + 1 for word in test])
        difference = compare((names[0], names[1]), costs, rival_costs, lengths)
    counted = baselines(trained_on, args.on, test)
    return Outcome(retraining, counted, rival, difference, out, samples, began)


def _config_names(files: list[ConfigFile]) -> list[str]:
    """Return the names of the configs: the stems of their files, or the paths if these agree."""
    stems = [file.path.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file.path) for file in files]


def _finish(args: Args, client: Any, experiment_id: str, outcome: Outcome) -> int:
    """Report the outcome, and log it to MLflow. Returns the exit code."""
    from experiments.retraining.terminal import show_next, show_outcome
    from experiments.retraining.tracking import log_outcome
    from studies.harness.cli.terminal import make_console
    from studies.harness.search.launch import NOT_SENT

    console = make_console(stderr=args.json)
    show_outcome(console, outcome)
    run_id = None
    registered = None
    try:
        run_id, registered = log_outcome(
            client, experiment_id, outcome, into_registry=args.register
        )
    except UserError as error:
        print(f"{error}. The checkpoint and the losses above are complete.", file=sys.stderr)

    show_next(console, outcome, registered, args.names, args.tracking_uri)
    if args.json:
        print(json.dumps(outcome.summary(run_id, registered)))
    return 0 if run_id else NOT_SENT


if __name__ == "__main__":
    run_script(Args, main)
