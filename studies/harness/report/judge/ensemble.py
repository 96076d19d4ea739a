"""Estimate of the dev loss of an ensemble of a study's kept models."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from makemore.counts import list_words
from makemore.data import Corpus
from makemore.ensemble import likelihoods
from makemore.kneser_ney import CONTEXT, KneserNey
from makemore.model import MLP
from makemore.selection import ENSEMBLE, ENSEMBLE_MIXED, choose, cross_fit, halves, losses

# Multiplications at most, summed over the models: about three seconds on one core.
MAX_WORK = 6e10


@dataclass(frozen=True)
class EnsembleEstimate:
    """An ensemble of a study's models; its dev losses are cross-fitted, in nats per character.

    Attributes:
        n_models: how many models it was selected from.
        n_members: how many of them it has.
        dev_loss: of the ensemble.
        mixed_loss: of the ensemble mixed with Kneser-Ney counts.
    """

    n_models: int
    n_members: int
    dev_loss: float
    mixed_loss: float

    def summary(self) -> dict[str, Any]:
        """Return the fields that the study stores."""
        return {"n_members": self.n_members, "dev_loss": self.dev_loss, "mixed": self.mixed_loss}

    @property
    def sentence(self) -> str:
        """The estimate in one sentence."""
        return (
            f"An ensemble of {self.n_members} of the {self.n_models} best models would have dev "
            f"loss {self.dev_loss:.4f}, and {self.mixed_loss:.4f} mixed with Kneser-Ney counts "
            "(cross-fitted by word; experiments/ensemble.py makes it)."
        )


def estimate_ensemble(models: Iterable[MLP], corpus: Corpus) -> EnsembleEstimate | None:
    """Select an ensemble from as many models as MAX_WORK allows.

    Args:
        models: the best first; the rest is not read once the work is too much.
        corpus: the words that they were trained on.

    Returns:
        None with fewer than two models, or fewer than two dev words.
    """
    words = list_words(corpus.dev, corpus.vocab)
    if len(set(words)) < 2:
        return None
    found = []
    work = 0.0
    for model in models:
        work += model.flat.numel() * len(corpus.dev.distinct(model.block_size).positions)
        if work > MAX_WORK:
            break
        found.append(likelihoods(model, corpus.dev))
    if len(found) < 2:
        return None

    table = np.array(found)
    counts = KneserNey.fit(corpus.train, len(corpus.vocab))
    counted = counts.likelihoods(corpus.dev.contexts(CONTEXT), corpus.dev.targets)
    measured = losses(cross_fit(table, counted, halves(words)))
    members = int((choose(table, None).picks > 0).sum())
    return EnsembleEstimate(len(found), members, measured[ENSEMBLE], measured[ENSEMBLE_MIXED])
