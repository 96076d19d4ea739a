"""Train an exported config again, with one or more seeds, evaluate it, and register the model.

The first seed is the config's own. With the config's own number of steps it reproduces the
exported trial's dev loss. The test split is read here and nowhere else: once per run, after all
training, and nothing is chosen by it.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import sys
import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from experiments.retraining.inputs import (
    TRAINING,
    ConfigFile,
    TrainingArgs,
    check_words,
    read_config_file,
    warn_of_teacher,
)
from makemore.cli import FAILED
from makemore.words import read_words, split_words
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from experiments.retraining.results import Outcome
    from makemore.data import Corpus
    from makemore.engines import TrainResult


@dataclass
class Args(TrainingArgs):
    """Train a config again with one or more seeds, evaluate it, and register the model."""

    file: Path
    """TOML file with a [config] table, for example from experiments/export.py."""
    _: KW_ONLY
    against: Annotated[Path | None, Parameter(group=TRAINING)] = None
    """Second config of the same model, trained with as many seeds and compared on test."""
    on: Annotated[Literal["train", "train+dev"], Parameter(group=TRAINING)] = "train"
    """Words to train on; train+dev measures no dev loss."""


def main(args: Args) -> int:
    """Train, evaluate, save, report and log. Returns the exit code."""
    began = time.time()
    model = args.load_model()
    paths = [path for path in (args.file, args.against) if path is not None]
    files = [read_config_file(path, model) for path in paths]
    out = args.check(args.file.stem)

    from experiments.retraining.evaluation import join_dev
    from experiments.retraining.finish import finish
    from experiments.retraining.seeds import make_configs, train_seeds
    from experiments.retraining.tracking import EXPERIMENT
    from makemore.data import load_corpus
    from makemore.engines import Diverged, EngineFailed
    from makemore.model_class import check_model
    from studies.harness.tracking.connection.connect import connect
    from studies.harness.tracking.connection.find import get_experiment

    configs = []
    for file in files:
        configs += make_configs(file.config, args.seeds, args.steps, args.on)
    corpus = load_corpus(args.names)
    for file in files:
        check_words(file, corpus, args)
        warn_of_teacher(file)
        if model is not None:
            check_model(model, file.config, len(corpus.vocab))
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, EXPERIMENT)

    trained_on = corpus if args.on == "train" else join_dev(corpus)
    try:
        watch = "dev_loss" if args.on == "train" else "minibatch_loss"
        results = train_seeds(
            trained_on, configs, args.device, args.workers, watch=watch, model=model
        )
    except (Diverged, EngineFailed, MemoryError) as error:
        print(str(error) or "Out of memory; lower --workers.", file=sys.stderr)
        return FAILED

    outcome = _evaluate(args, files, corpus, trained_on, results, out, began)
    return finish(args, client, experiment_id, outcome)


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
    from experiments.retraining.evaluation import baselines, evaluate_seeds
    from experiments.retraining.finish import conclude
    from experiments.retraining.results import Retraining
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
    rival = (names[1], rival_seeds) if rival_seeds else None
    counted = baselines(trained_on, args.on, test)
    return conclude(retraining, rival, counted, corpus.vocab, test, out, began)


def _config_names(files: list[ConfigFile]) -> list[str]:
    """Return the names of the configs: the stems of their files, or the paths if these agree."""
    stems = [file.path.stem for file in files]
    return stems if len(set(stems)) == len(stems) else [str(file.path) for file in files]


if __name__ == "__main__":
    run_script(Args, main)
