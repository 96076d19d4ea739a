"""Everything that is said of a study, found once and told in several places: the page, the note in MLflow."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from makemore.counts import Rung, ladder, list_words, unseen_words
from makemore.data import Corpus
from makemore.model import MLP
from makemore.sampling import sample_words, score_words
from studies.harness.report.best_so_far import best_so_far
from studies.harness.report.judge.budget import Budget, judge_budget
from studies.harness.report.judge.noise import Noise, measure_noise, tied_trials
from studies.harness.report.judge.pruning import (
    Pruning,
    RankCorrelation,
    judge_pruning,
    predict_ends,
)
from studies.harness.report.judge.ranges import Boundary, judge_boundary
from studies.harness.report.judge.stopping import Search, judge_search
from studies.harness.report.results import Results

if TYPE_CHECKING:
    import pandas as pd

SAMPLED = 1000  # words from which the share that stands in train is estimated
SHOWN = 10

# The embedded names, and the lectures' own file: the same list but for 224 rows.
NAMES = (
    "bd02dfd33179e23ec2dd093cbd4de619834f75d660ef1ae04d3127e7a0110053",
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
# Dev losses of the lectures' models on their own file.
LECTURES = {
    "block_size 3, n_embd 10, n_hidden 200, as first trained": 2.17,
    "the same with kaiming init": 2.107,
    "the same with batch norm": 2.105,
    "block_size 8": 2.027,
    "the hierarchical net, 76,579 parameters": 1.9937,
}


@dataclass(frozen=True)
class Findings:
    """The verdicts on a study.

    Attributes:
        best: the trial of lowest dev loss, or None when none was measured.
        outcomes: how many trials are complete, pruned, diverged and so on.
        max_steps: of the trials.
    """

    results: Results
    best: pd.Series | None
    outcomes: dict[str, int]
    max_steps: int
    noise: Noise | None
    tied: pd.DataFrame
    boundaries: list[Boundary]
    budget: Budget
    foretold: list[RankCorrelation]
    pruning: Pruning
    curve: pd.DataFrame
    search: Search

    @property
    def config(self) -> dict[str, Any]:
        """The fields of the best trial's config, the seed left out."""
        if self.best is None:
            return {}
        searched = {
            name: plain(self.best[name])
            for name in self.results.params
            if self.best[name] is not None
        }
        return {**self.results.base, **searched}


def find(results: Results) -> Findings:
    """Judge a study."""
    trials, points = results.trials, results.points
    max_steps = int(results.base.get("max_steps") or points.step.max() if len(points) else 1)
    noise = measure_noise(trials, results.repeats)
    measured = results.measured
    diverged = (
        trials.reason.str.startswith("diverged") if len(trials) else trials.reason.astype(bool)
    )
    kinds = trials.state.str.lower().mask(diverged.astype(bool), "diverged")
    return Findings(
        results=results,
        best=measured.iloc[0] if len(measured) else None,
        outcomes=dict(Counter(kinds).most_common()),
        max_steps=max_steps,
        noise=noise,
        tied=tied_trials(trials, noise),
        boundaries=[judge_boundary(name, d, trials) for name, d in results.space.items()],
        budget=judge_budget(trials, points, max_steps, noise.sd if noise else None),
        foretold=predict_ends(trials, points, max_steps),
        pruning=judge_pruning(trials, points),
        curve=best_so_far(trials, points),
        search=judge_search(trials, noise.sd if noise else None),
    )


@dataclass(frozen=True)
class Examined:
    """What the corpus tells about a model, and about models that only count.

    Attributes:
        rungs: the counting baselines.
        lectures: dev losses of the lectures' models by name; empty for words that they were not trained on.
        n_dev, n_new: dev words, and those that do not stand in train.
        dev_loss, new_loss: of the model over each, nats per character; None without a model.
        words: sampled words that do not stand in train.
        known: share of the sampled words that do; None without a model.
    """

    rungs: list[Rung]
    lectures: dict[str, float]
    n_dev: int
    n_new: int
    dev_loss: float | None = None
    new_loss: float | None = None
    words: tuple[str, ...] = ()
    known: float | None = None


def examine(corpus: Corpus, model: MLP | None) -> Examined:
    """Hold the best model against the corpus; about a second for 30,000 names.

    Without a model the counting baselines stand alone.
    """
    vocab, rungs, lectures = (
        corpus.vocab,
        ladder(corpus),
        LECTURES if corpus.sha256 in NAMES else {},
    )
    dev, new = list_words(corpus.dev, vocab), set(unseen_words(corpus))
    n_new = sum(word in new for word in dev)
    if model is None or not bool(torch.isfinite(model.flat).all()):
        return Examined(rungs, lectures, len(dev), n_new)
    lengths = np.array([len(word) + 1 for word in dev])
    losses, is_new = (
        score_words(model, vocab, dev) * lengths,
        np.array([word in new for word in dev]),
    )
    new_loss = float(losses[is_new].sum() / lengths[is_new].sum()) if n_new else None
    train = set(list_words(corpus.train, vocab))
    words = sample_words(model, vocab, SAMPLED, seed=model.config.seed)
    fresh = [word for word in dict.fromkeys(words) if word and word not in train]
    known = sum(word in train for word in words) / len(words)
    dev_loss, sampled = float(losses.sum() / lengths.sum()), tuple(fresh[:SHOWN])
    return Examined(rungs, lectures, len(dev), n_new, dev_loss, new_loss, sampled, known)


def plain(value: Any) -> Any:
    """A table's value as Python writes it: 200.0 in a column with gaps is 200."""
    value = value.item() if hasattr(value, "item") else value
    return (
        int(value)
        if isinstance(value, float) and value.is_integer() and abs(value) < 2**53
        else value
    )
