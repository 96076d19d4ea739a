"""Train an exported config again with one or more seeds, measure it on the test split, and register the model.

The first seed is the config's own, so that at the config's own number of steps the trial that was exported is trained
once more, to the same dev loss. The test split is read here and nowhere else, once a run and after all training, and
nothing is chosen by it.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import sys
import time
from contextlib import closing
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter

from experiments.logbook import Outcome, log_outcome
from experiments.measures import baselines, compare, join_dev, measure
from experiments.registry import MODEL, Registered
from experiments.seeds import TRAIN, Retraining, make_configs, train_all
from experiments.terminal import show_outcome
from makemore.checkpoint import save_checkpoint
from makemore.cli import SWITCH
from makemore.config import Config, parse_config, read_toml
from makemore.data import Corpus, load_corpus
from makemore.engines import Diverged, EngineFailed, Envelope, TrainResult, make_engine
from makemore.errors import UserError
from makemore.sampling import sample_words
from makemore.words import read_words, split_words
from studies.harness.cli.args import count_slots
from studies.harness.cli.commands import print_next, store_flags
from studies.harness.cli.script import run_script
from studies.harness.cli.terminal import make_console, say
from studies.harness.search.launch import NOT_SENT
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import without_password
from studies.harness.tracking.client import connect, get_experiment
from studies.harness.tracking.runs import describe_data

EXPERIMENT = "retrain"
N_SAMPLES = 20
PORT = 5100  # of the command that serves the model; the UI takes those from 5000


@dataclass
class Args:
    """Train a config again with one or more seeds, measure it on the test split, and register the model."""

    file: Path
    """File with a [config] table, such as experiments/export.py writes."""
    _: KW_ONLY
    seeds: int = 1
    """How many seeds: the config's own, and further ones derived from it."""
    steps: int | None = None
    """Optimizer steps; the config's own if not given."""
    on: Literal["train", "train+dev"] = "train"
    """What to train on. train+dev is for the last model: it has no dev loss, and the last step's weights are kept."""
    select: Literal["median", "best"] = "median"
    """Which seed's model is saved and registered, by dev loss (by train loss with train+dev). The best one's own dev
    loss flatters it."""
    against: Path | None = None
    """A second config, trained with as many seeds, whose test loss is compared word by word."""
    register: bool = True
    """Register the model in MLflow as makemore-mlp."""
    names: Path | None = None
    """File of words, one a line, UTF-8; the embedded names if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps; auto takes CUDA, then MPS, then the CPU."""
    workers: int | None = None
    """Models trained at once; the number of cores, or 256 on a GPU, if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI; the SQLite database in mlruns/ if not given."""
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None
    """Where the selected seed's model goes; mlruns/checkpoints/NAME.safetensors if not given."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Train, measure, save, report and log. Returns the exit code."""
    began = time.time()
    config, origin = _read(args.file)
    configs = make_configs(config, args.seeds, args.steps, args.on)
    other, other_origin = _read(args.against) if args.against else (None, {})
    others = make_configs(other, args.seeds, args.steps, args.on) if other else []
    if args.workers is not None and args.workers < 1:
        raise UserError(f"--workers must be at least 1, but got {args.workers}.")
    corpus = load_corpus(args.names)
    _checkpoint(args)  # refused now, and not after the training
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, EXPERIMENT)
    dataset = describe_data(corpus, args.names)
    for path, found_on in ((args.file, origin), (args.against, other_origin)):
        _warn_of_other_data(path, found_on, dataset)
    trained_on = corpus if args.on == TRAIN else join_dev(corpus)
    try:
        results = _train(args, trained_on, [*configs, *others])
    except (Diverged, EngineFailed, MemoryError) as error:
        print(str(error) or "out of memory; lower --workers.", file=sys.stderr)
        return 1
    outcome = _examine(args, corpus, trained_on, results, config, origin, began)
    return _finish(args, client, experiment_id, outcome)


def _examine(
    args: Args,
    corpus: Corpus,
    trained_on: Corpus,
    results: list[TrainResult],
    config: Config,
    origin: dict[str, Any],
    began: float,
) -> Outcome:
    """Measure what was trained, on the test split too, and save the selected seed's model."""
    test = split_words(read_words(args.names)).test  # the only reading of the test split
    replicas = measure(results, trained_on, args.on, test)
    first, second = replicas[: args.seeds], replicas[args.seeds :]
    names, dataset = _names(args), describe_data(corpus, args.names)
    done = Retraining(names[0], config, origin, dataset, first, args.on, args.select)
    model, losses, out = done.selected.model, done.selected.losses, _checkpoint(args)
    save_checkpoint(
        out, model, corpus.vocab, losses=losses, origin=origin, corpus=dataset, trained_on=args.on
    )
    samples = sample_words(model, corpus.vocab, N_SAMPLES, seed=model.config.seed)
    rival, difference = None, None
    if second:
        costs, rivals = (np.stack([replica.words for replica in side]) for side in (first, second))
        lengths = np.array([len(word) + 1 for word in test])
        rival, difference = (names[1], second), compare(names, costs, rivals, lengths)
    return Outcome(
        done, baselines(trained_on, args.on, test), rival, difference, out, samples, began
    )


def _finish(args: Args, client: Any, experiment_id: str, outcome: Outcome) -> int:
    """Report, and log to MLflow. Returns the exit code."""
    console = make_console(stderr=args.json)
    show_outcome(console, outcome)
    try:
        run_id, registered = log_outcome(
            client, experiment_id, outcome, into_registry=args.register
        )
    except UserError as error:
        print(f"{error}. The checkpoint and the figures above are whole.", file=sys.stderr)
        run_id, registered = None, None
    _show_next(console, args, registered, outcome.checkpoint)
    if args.json:
        print(json.dumps(_summary(outcome, run_id, registered)))
    return 0 if run_id else NOT_SENT


def _checkpoint(args: Args) -> Path:
    """Where the model goes.

    Raises:
        UserError: that is a directory.
    """
    out = args.out or MLRUNS / "checkpoints" / f"{args.file.stem}.safetensors"
    if out.is_dir():
        raise UserError(f"{out}: is a directory; give --out the path of a file.")
    return out


def _read(path: Path) -> tuple[Config, dict[str, Any]]:
    """The config of a file, and its origin, which is empty when it has none.

    Raises:
        UserError: as `read_toml` and `parse_config`.
    """
    tables = read_toml(path)
    origin = tables.get("origin", {})
    if not isinstance(origin, dict):
        raise UserError(f"{path}: origin must be a table, but is {origin!r}; remove that line.")
    return parse_config(tables["config"], str(path)), origin


def _train(args: Args, corpus: Corpus, configs: list[Config]) -> list[TrainResult]:
    slots = count_slots(args.device, args.workers, len(configs))
    with closing(make_engine(args.device, corpus, slots, Envelope.around(*configs))) as engine:
        return train_all(engine, configs, watch="dev_loss" if args.on == TRAIN else "train_loss")


def _names(args: Args) -> tuple[str, str]:
    """What the two configs are called; the second is empty without one."""
    if args.against is None:
        return args.file.stem, ""
    same = args.file.stem == args.against.stem
    return (str(args.file), str(args.against)) if same else (args.file.stem, args.against.stem)


def _warn_of_other_data(path: Path | None, origin: dict[str, Any], dataset: dict[str, str]) -> None:
    found, used = origin.get("data_sha256"), dataset["sha256"]
    if found not in (None, used):
        print(
            f"Warning: the config {path} was found on {origin.get('data')} (sha256 {found}), and is trained on "
            f"{dataset['source']} (sha256 {used}); their losses cannot be compared. --names says what to train on.",
            file=sys.stderr,
        )


def _show_next(console: Any, args: Args, registered: Registered | None, out: Path) -> None:
    if registered is not None:
        version = f"version {registered.version} of {MODEL}, {registered.alias}"
        say(console, f"Registered as {version}: {registered.reason}.")
    flags = store_flags(args, storage=False)
    print_next(
        console,
        ("make up names", "experiments/generate.py", [str(out), "--n", "20"]),
        ("see the runs in the MLflow UI", "studies/ui.py", [EXPERIMENT, *flags]),
    )
    if registered is not None:
        console.print(f"  {_serve_command(args, registered)}  # serve it", soft_wrap=True)


def _serve_command(args: Args, registered: Registered) -> str:
    uri = args.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or "sqlite:///mlruns/mlflow.db"
    command = f"MLFLOW_TRACKING_URI={shlex.quote(without_password(uri))} mlflow models serve -m {registered.uri}"
    found, folder = shutil.which("mlflow"), Path(sys.executable).parent
    if not found or Path(found).parent != folder:  # mlflow looks for its server on the PATH too
        shown = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
        command = f'PATH={shlex.quote(str(shown))}:"$PATH" {command}'
    return f"{command} --env-manager local --host 127.0.0.1 --port {PORT}"


def _summary(outcome: Outcome, run_id: str | None, registered: Registered | None) -> dict[str, Any]:
    summary = {
        **outcome.done.summary(),
        "checkpoint": str(outcome.checkpoint),
        "mlflow_run_id": run_id,
    }
    summary["baselines"] = {rung.name: rung.losses for rung in outcome.rungs}
    summary["comparison"] = outcome.difference.summary() if outcome.difference else None
    summary["registered"] = (
        {"version": registered.version, "alias": registered.alias} if registered else None
    )
    return summary


if __name__ == "__main__":
    run_script(Args, main)
