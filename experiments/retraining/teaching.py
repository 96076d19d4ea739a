"""The teacher of a distillation, from the file of an ensemble or of a single model."""

from __future__ import annotations

import hashlib
from pathlib import Path

from experiments.retraining.results import TRAIN_AND_DEV
from makemore.data import Corpus
from makemore.ensemble import Trained, load_trained
from makemore.errors import UserError
from makemore.model_class import NeedsClass
from makemore.teacher import Teacher


def read_teacher(path: Path, corpus: Corpus) -> Trained:
    """Read an ensemble or a checkpoint that can teach the train words of a corpus.

    Raises:
        UserError: it is neither, it was trained on other words, or the dev words were among them.
    """
    try:
        trained = load_trained(path)
    except NeedsClass:
        raise UserError(f"{path}: cannot teach; give an MLP or an ensemble of MLPs.") from None
    words = trained.metadata.get("corpus", {})
    if words.get("sha256", corpus.sha256) != corpus.sha256:
        raise UserError(
            f"{path}: was trained on the words of {words.get('source', 'another file')} (sha256 "
            f"{words['sha256'][:12]}), not on those of {corpus.source} (sha256 "
            f"{corpus.sha256[:12]}), so it may know the dev words; give its file with --names."
        )
    if trained.metadata.get("trained_on") == TRAIN_AND_DEV:
        raise UserError(
            f"{path}: was trained on the dev words too, so the dev loss would measure nothing; "
            "give a model that was trained on train alone."
        )
    if trained.vocab.symbols != corpus.vocab.symbols:
        theirs = "".join(trained.vocab.symbols[1:])
        raise UserError(
            f"{path}: knows the characters {theirs!r}, but {corpus.source} has "
            f"{''.join(corpus.vocab.symbols[1:])!r}; give its file with --names."
        )
    return trained


def make_teacher(path: Path, trained: Trained, corpus: Corpus, weight: float) -> Teacher:
    """Compute the soft targets of the train words.

    Args:
        path: the teacher's file.
        trained: its content.
        weight: of the soft targets, 0 to 1.
    """
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Teacher.of(trained.model, corpus, weight, path.name, digest)
