"""Train an exported config again with one or more seeds, and measure it on the test split.

The first seed is the config's own, so that at the config's own number of steps the trial that was exported is trained
once more, to the same dev loss. The test split is read and encoded here and nowhere else.
"""

from __future__ import annotations

import json
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro
from rich import box
from rich.table import Table

from experiments.seeds import LOSSES, Replica, Retraining, make_configs, train_all
from makemore.checkpoint import save_checkpoint
from makemore.config import parse_config, read_toml
from makemore.data import Corpus, Examples, load_corpus, read_words, split_words
from makemore.engines import Diverged, EngineFailed, Envelope, TrainResult, make_engine
from makemore.sampling import sample_words
from makemore.trainer import evaluate
from studies.harness.cli import run_script
from studies.harness.display import make_console, print_next, say, store_flags
from studies.harness.launch import NOT_SENT, count_slots
from studies.harness.mlflow_store import connect, get_experiment
from studies.harness.runs import FinishedRun, describe_data, log_run
from studies.harness.storage import MLRUNS

EXPERIMENT = "retrain"
N_SAMPLES = 20


@dataclass
class Args:
    """Train a config again with one or more seeds, and measure it on the test split."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="CONFIG.toml")]
    """File with a [config] table, such as experiments/export.py writes."""
    seeds: int = 1
    """How many seeds: the config's own, and further ones derived from it."""
    steps: int | None = None
    """Optimizer steps; the config's own if not given."""
    names: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """File of words, one a line, UTF-8; the embedded names if not given."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 or mps; auto takes CUDA, then MPS, then the CPU."""
    workers: int | None = None
    """Models trained at once; the number of cores, or 256 on a GPU, if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI; the SQLite database in mlruns/ if not given."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="CHECKPOINT", aliases=["-o"])] = None
    """Where the model of the median seed goes; mlruns/checkpoints/NAME.safetensors if not given."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Train, measure, save, report and log. Returns the exit code."""
    began = time.time()
    tables = read_toml(args.file)
    config, origin = parse_config(tables["config"], str(args.file)), tables.get("origin", {})
    configs = make_configs(config, args.seeds, args.steps)
    if args.workers is not None and args.workers < 1:
        raise ValueError(f"--workers must be at least 1, but got {args.workers}.")
    corpus = load_corpus(args.names)
    slots = count_slots(args.device, args.workers, len(configs))
    out = args.out or MLRUNS / "checkpoints" / f"{args.file.stem}.safetensors"
    if out.is_dir():
        raise ValueError(f"{out}: is a directory; give --out the path of a file.")
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, EXPERIMENT)
    dataset = describe_data(corpus, args.names)
    _warn_of_other_data(origin, dataset)
    try:
        with closing(make_engine(args.device, corpus, slots, Envelope.around(*configs))) as engine:
            results = train_all(engine, configs)
    except (Diverged, EngineFailed, MemoryError) as error:
        print(str(error) or "out of memory; lower --workers.", file=sys.stderr)
        return 1
    replicas = measure(results, corpus, args.names)
    done = Retraining(args.file.stem, config, origin, dataset, replicas, began)
    save_checkpoint(out, done.median.model, corpus.vocab, losses=done.median.losses, origin=origin, corpus=dataset)
    words = sample_words(done.median.model, corpus.vocab, N_SAMPLES, seed=done.median.config.seed)
    report(args, done, out, words)
    run_id = _log(client, experiment_id, done, out, words)
    if args.json:
        print(json.dumps({**done.summary(), "checkpoint": str(out), "mlflow_run_id": run_id}))
    return 0 if run_id else NOT_SENT


def measure(results: Sequence[TrainResult], corpus: Corpus, names: Path | None) -> list[Replica]:
    """The losses of each result on all three splits; reads the test split."""
    test = Examples.of(split_words(read_words(names)).test, corpus.vocab)
    splits = dict(zip(LOSSES, (corpus.train, corpus.dev, test), strict=True))
    return [Replica(r, {name: evaluate(r.model, split) for name, split in splits.items()}) for r in results]


def _warn_of_other_data(origin: dict[str, Any], dataset: dict[str, str]) -> None:
    found, used = origin.get("data_sha256"), dataset["sha256"]
    if found not in (None, used):
        print(
            f"Warning: the config was found on {origin.get('data')} (sha256 {found}), and is trained on "
            f"{dataset['source']} (sha256 {used}); their losses cannot be compared. --names says what to train on.",
            file=sys.stderr,
        )


def report(args: Args, done: Retraining, out: Path, words: list[str]) -> None:
    """Print what the user wants to know; on standard error with --json."""
    console = make_console(stderr=args.json)
    summary, origin = done.summary(), done.origin
    n, steps = len(done.replicas), done.replicas[0].config.max_steps
    say(console, f"{done.name}: {summary['n_params']:,} parameters, {steps:,} steps; the best weights' losses:", "bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    for heading in ("seed", "best_step", *LOSSES):
        table.add_column(heading, justify="right")
    for row in summary["seeds"]:
        table.add_row(str(row["seed"]), str(row["best_step"]), *(f"{row[name]:.4f}" for name in LOSSES))
    if n > 1:
        table.add_section()
        cells = (f"{summary['mean'][name]:.4f} ± {summary['sd'][name]:.4f}" for name in LOSSES)
        table.add_row("mean ± sd", "", *cells)
    console.print(table)
    if done.again is not None:
        say(console, _comparison(done.again, origin))
    say(console, f"{N_SAMPLES} words it makes up: {', '.join(words)}")
    say(console, f"Saved as {out}" + (", the seed of median dev loss" if n > 1 else ""))
    print_next(
        console, ("see the runs in the MLflow UI", "studies/ui.py", [EXPERIMENT, *store_flags(args, storage=False)])
    )


def _comparison(again: float, origin: dict[str, Any]) -> str:
    trial = f"trial {origin.get('trial')} of study {origin.get('study')}"
    where, before = f"dev loss {again:.4f} at step {origin['best_step']:,}", origin["dev_loss"]
    if again == before:
        return f"The first seed has {where}, exactly as {trial}."
    why = "every digit is the same only on the same kind of processor, with the same versions"
    return f"The first seed has {where}, {again - before:+.2g} from {trial}: {why}."


def _log(client: Any, experiment_id: str, done: Retraining, out: Path, words: list[str]) -> str | None:
    """Write a parent run with a child run a seed to MLflow; returns the parent's id, or None where MLflow fails."""
    summary = done.summary()
    tags = {"kind": "retrain"} | {
        f"origin.{key}": str(done.origin[key]) for key in ("study", "trial") if key in done.origin
    }
    steps = done.replicas[0].config.max_steps
    metrics = [(name, summary["mean"][name], steps) for name in ("dev_loss", "train_loss", "test_loss")]
    metrics += [(f"{name}_sd", sd, steps) for name, sd in summary["sd"].items() if sd is not None]
    params = {**done.replicas[0].config.model_dump(exclude={"seed"}), "seeds": len(done.replicas)}
    try:
        with tempfile.TemporaryDirectory() as folder:
            files = _write_files(Path(folder), done, out, words)
            name = f"{summary['mean']['dev_loss']:.4f} · {done.name}"
            parent = FinishedRun(name, params, metrics, tags, files, done.began)
            parent_id = log_run(client, experiment_id, parent, done.dataset)
        for replica in done.replicas:
            log_run(client, experiment_id, _child(replica, tags, done.began), done.dataset, parent_id=parent_id)
    except ValueError as error:
        print(f"{error}. The checkpoint and the figures above are whole.", file=sys.stderr)
        return None
    return parent_id


def _write_files(folder: Path, done: Retraining, out: Path, words: list[str]) -> list[Path]:
    config, model, samples = folder / "config.toml", folder / "model.safetensors", folder / "samples.txt"
    config.write_text(done.replicas[0].config.to_toml(origin=done.origin), encoding="utf-8")
    shutil.copy(out, model)
    samples.write_text("\n".join(words) + "\n", encoding="utf-8")
    return [config, model, samples]


def _child(replica: Replica, tags: dict[str, str], began: float) -> FinishedRun:
    result, losses = replica.result, replica.losses
    rows = [
        (key, float(value), point.step)
        for point in result.history
        for key, value in {"dev_loss": point.dev_loss, "train_loss": point.train_loss, "lr": point.lr}.items()
    ]
    # Tables show the last value: the exact losses of the best weights, as the checkpoint has them.
    final = {**losses, "best_step": result.best.step, "seconds": result.seconds, "n_params": result.n_params}
    rows += [(key, float(value), replica.config.max_steps) for key, value in final.items()]
    name = f"{losses['dev_loss']:.4f} · seed {replica.config.seed}"
    return FinishedRun(name, replica.config.model_dump(), rows, tags, started=began)


if __name__ == "__main__":
    run_script(Args, main)
