"""The end of a retraining: save the selected model, print the outcome, log and register it."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from experiments.retraining.comparison import compare
from experiments.retraining.evaluation import Baseline
from experiments.retraining.inputs import TrainingArgs
from experiments.retraining.results import Outcome, Retraining, SeedResult
from experiments.retraining.terminal import show_next, show_outcome
from experiments.retraining.tracking import log_outcome
from makemore.checkpoint import save_checkpoint
from makemore.errors import UserError, writing
from makemore.sampling import sample_words
from makemore.words import Vocab
from studies.harness.cli.terminal import make_console
from studies.harness.search.launch import NOT_SENT

N_SAMPLES = 20


def conclude(
    retraining: Retraining,
    rival: tuple[str, list[SeedResult]] | None,
    baselines: list[Baseline],
    vocab: Vocab,
    words: Sequence[str],
    out: Path,
    began: float,
) -> Outcome:
    """Save the selected seed's model, sample words from it, and compare it with the rival.

    Args:
        words: the words that `SeedResult.word_costs` belongs to.
        out: path of the checkpoint.

    Raises:
        UserError: the checkpoint cannot be written.
    """
    selected = retraining.selected
    taught = {"teacher": retraining.teacher} if retraining.teacher else {}
    replaces = out.exists()
    with writing(out, "--out"):
        save_checkpoint(
            out,
            selected.model,
            vocab,
            losses=selected.losses,
            origin=retraining.origin,
            corpus=retraining.dataset,
            trained_on=retraining.trained_on,
            **taught,
        )
    samples = sample_words(selected.model, vocab, N_SAMPLES, seed=selected.config.seed)

    difference = None
    if rival is not None:
        costs = np.stack([seed.word_costs for seed in retraining.seeds])
        rival_costs = np.stack([seed.word_costs for seed in rival[1]])
        lengths = np.array([len(word) + 1 for word in words])
        difference = compare((retraining.name, rival[0]), costs, rival_costs, lengths)
    return Outcome(retraining, baselines, rival, difference, out, replaces, samples, began)


def finish(args: TrainingArgs, client: Any, experiment_id: str, outcome: Outcome) -> int:
    """Report the outcome, and log it to MLflow. Returns the exit code."""
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
