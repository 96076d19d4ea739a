"""Train one model on the probabilities that an ensemble predicts; compare it with plain training.

The targets are a mixture of the true next characters and the ensemble's probabilities (Hinton et
al. 2015). The config is trained without the ensemble too, with the same seeds. The test split is
not read.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import sys
import time
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Group, Parameter

from experiments.retraining.inputs import (
    TRAINING,
    ConfigFile,
    TrainingArgs,
    check_words,
    read_config_file,
)
from makemore.cli import FAILED
from makemore.errors import UserError
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from experiments.retraining.results import Outcome
    from makemore.data import Corpus
    from makemore.engines import TrainResult
    from makemore.ensemble import Trained
    from makemore.teacher import Teacher

WITHOUT = "without the ensemble"
TEACHING = Group("Teaching", sort_key=1)


@dataclass
class Args(TrainingArgs):
    """Train a config on the probabilities of an ensemble, and compare with training without it."""

    ensemble: Path
    """File from experiments/ensemble.py, or a checkpoint."""
    file: Path
    """TOML file with a [config] table, for example from experiments/export.py."""
    _: KW_ONLY
    weight: Annotated[float, Parameter(group=TEACHING)] = 0.5
    """Weight of the ensemble's probabilities; the true targets have the rest of 1."""
    seeds: Annotated[int, Parameter(group=TRAINING)] = 5
    """Number of seeds: the config's own, and others derived from it."""


def main(args: Args) -> int:
    """Train with and without the ensemble, save, report and log. Returns the exit code."""
    began = time.time()
    model = args.load_model()
    file = read_config_file(args.file, model)
    out = args.check(f"{args.file.stem}-distilled")
    if not 0 < args.weight <= 1:
        raise UserError(f"--weight must be greater than 0 and at most 1, but got {args.weight}.")

    from experiments.retraining.finish import finish
    from experiments.retraining.seeds import make_configs, train_seeds
    from experiments.retraining.teaching import make_teacher, read_teacher
    from experiments.retraining.tracking import EXPERIMENT
    from makemore.data import load_corpus
    from makemore.engines import Diverged, EngineFailed
    from studies.harness.tracking.connection.connect import connect
    from studies.harness.tracking.connection.find import get_experiment

    configs = make_configs(file.config, args.seeds, args.steps)
    corpus = load_corpus(args.names)
    check_words(file, corpus, args)
    trained = read_teacher(args.ensemble, corpus)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, EXPERIMENT)

    teacher = make_teacher(args.ensemble, trained, corpus, args.weight)
    taught = replace(corpus, teacher=teacher)
    try:
        results = train_seeds(taught, configs, args.device, args.workers, model=model)
        plain = train_seeds(corpus, configs, args.device, args.workers, model=model)
    except (Diverged, EngineFailed, MemoryError) as error:
        print(str(error) or "Out of memory; lower --workers.", file=sys.stderr)
        return FAILED

    outcome = _evaluate(args, file, corpus, trained, teacher, results, plain, out, began)
    return finish(args, client, experiment_id, outcome)


def _evaluate(
    args: Args,
    file: ConfigFile,
    corpus: Corpus,
    trained: Trained,
    teacher: Teacher,
    results: list[TrainResult],
    plain: list[TrainResult],
    out: Path,
    began: float,
) -> Outcome:
    """Evaluate the results of training with and without the ensemble, and save the model."""
    from experiments.retraining.evaluation import Baseline, evaluate_seeds
    from experiments.retraining.finish import conclude
    from experiments.retraining.results import TRAIN, Retraining
    from makemore.counts import list_words
    from makemore.sampling import score_words
    from studies.harness.tracking.runs import describe_data

    retraining = Retraining(
        f"{args.file.stem}, distilled",
        file.config,
        file.origin,
        describe_data(corpus, args.names),
        evaluate_seeds(results, corpus, TRAIN, None),
        TRAIN,
        args.select,
        teacher.record,
    )
    rival = (WITHOUT, evaluate_seeds(plain, corpus, TRAIN, None))
    words = list_words(corpus.dev, corpus.vocab)
    lengths = [len(word) + 1 for word in words]
    costs = score_words(trained.model, corpus.vocab, words) * lengths
    ensemble = Baseline("the ensemble", {"dev_loss": float(costs.sum() / sum(lengths))})
    return conclude(retraining, rival, [ensemble], corpus.vocab, words, out, began)


if __name__ == "__main__":
    run_script(Args, main)
