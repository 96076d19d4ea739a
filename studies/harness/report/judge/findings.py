"""All verdicts on a study, computed once for the report page and the note in MLflow."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from makemore.counts import Rung, examples_of, find_words, first_words, ladder, list_words
from makemore.data import Corpus
from makemore.evaluation import evaluate
from makemore.models import Model
from makemore.sampling import sample_words, score_words
from studies.harness.report.best_so_far import best_so_far
from studies.harness.report.judge.budget import Budget, judge_budget
from studies.harness.report.judge.ensemble import EnsembleEstimate
from studies.harness.report.judge.pruning import (
    Pruning,
    RankCorrelation,
    judge_pruning,
    rank_correlations,
)
from studies.harness.report.judge.ranges import Range, judge_range
from studies.harness.report.judge.stopping import Stopping, judge_stopping
from studies.harness.report.results import Results
from studies.harness.store.trials import OUT_OF_MEMORY
from studies.harness.store.winner.noise import Noise
from studies.harness.store.winner.winner import Winner

if TYPE_CHECKING:
    import pandas as pd

N_SAMPLED = 1000  # words from which the share of known words is estimated
N_SHOWN = 10  # sampled words in the report
MAX_WORDS = (200_000, 20_000)  # words of train that are counted, words of dev that are measured

# SHA-256 of the embedded names and of the lectures' own file, the same list but for 224 rows.
NAMES = (
    "bd02dfd33179e23ec2dd093cbd4de619834f75d660ef1ae04d3127e7a0110053",
    "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d",
)
# Dev losses of the lectures' models on their own file, in nats per character.
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
        results: the tables that were judged.
        best: row of the winner in the table of trials; None if no trial has a dev loss.
        outcomes: number of trials by outcome: complete, pruned, diverged, out of memory, fail.
        max_steps: steps of each trial.
        ranges: a verdict for each searched parameter.
        budget: verdict on the step budget.
        rank_correlations: how well early dev losses predict the final ranking.
        pruning: verdict on the pruner.
        curve: best dev loss so far, see `best_so_far`.
        stopping: verdict on the number of trials.
        gap: dev loss minus train loss of the best model, see `ModelCheck.gap`; None if its model
            was not checked.
    """

    results: Results
    best: pd.Series | None
    outcomes: dict[str, int]
    max_steps: int
    ranges: list[Range]
    budget: Budget
    rank_correlations: list[RankCorrelation]
    pruning: Pruning
    curve: pd.DataFrame
    stopping: Stopping
    gap: float | None = None

    @property
    def noise(self) -> Noise | None:
        """Noise between seeds; None without seed repeats."""
        return self.results.noise

    @property
    def winner(self) -> Winner | None:
        """The best config; None if no trial has a dev loss."""
        return self.results.winner

    @property
    def config(self) -> dict[str, Any]:
        """The winner's config without its seed; empty if no trial has a dev loss."""
        if self.best is None:
            return {}
        searched = {
            name: plain_value(self.best[name])
            for name in self.results.params
            if self.best[name] is not None
        }
        return {**self.results.base, **searched}

    @property
    def fixed(self) -> dict[str, Any]:
        """The fields of the config that are the same in all trials."""
        params = self.results.params
        return {name: value for name, value in self.results.base.items() if name not in params}


def judge_study(results: Results) -> Findings:
    """Compute all verdicts on a study."""
    trials = results.trials
    points = results.points
    winner = results.winner
    max_steps = 1
    if len(points):
        max_steps = int(results.base.get("max_steps") or points.step.max())
    noise_sd = results.noise.sd if results.noise else None
    pruning = judge_pruning(trials)
    return Findings(
        results=results,
        best=trials[trials.trial == winner.number].iloc[0] if winner else None,
        outcomes=_count_outcomes(trials),
        max_steps=max_steps,
        ranges=[judge_range(name, d, trials) for name, d in results.space.items()],
        budget=judge_budget(trials, points, max_steps, noise_sd),
        rank_correlations=rank_correlations(trials, points, max_steps),
        pruning=pruning,
        curve=best_so_far(trials, points),
        stopping=judge_stopping(trials, pruning, noise_sd),
    )


def _count_outcomes(trials: pd.DataFrame) -> dict[str, int]:
    if not len(trials):  # the column has no strings then
        return {}
    outcomes = trials.state.str.lower()
    for outcome in ("diverged", OUT_OF_MEMORY):
        found = trials.reason.str.startswith(outcome).astype(bool)
        outcomes = outcomes.mask(found, outcome)
    return dict(Counter(outcomes).most_common())


@dataclass(frozen=True)
class ModelCheck:
    """The best model compared with counting models and with the lectures' models.

    All losses are in nats per character. Without a model, the attributes from dev_loss to
    share_in_train are empty.

    Attributes:
        rungs: the counting baselines, over the measured words.
        lectures: dev losses of the lectures' models by name; empty for other words than theirs.
        n_dev: number of dev words that are measured.
        n_new: how many of them are not in the train split.
        train_loss: of the model, exact over the whole train split; None for a large file.
        dev_loss: of the model over the measured dev words.
        new_loss: of the model over the measured dev words that are not in the train split.
        words: sampled words that are not in the train split.
        share_in_train: share of the sampled words that are in the train split.
        limit: in a large file, the sentence that says how many words are measured; else empty.
        ensemble: estimate for an ensemble of the kept models; None if it was not computed.
    """

    rungs: list[Rung]
    lectures: dict[str, float]
    n_dev: int
    n_new: int
    train_loss: float | None = None
    dev_loss: float | None = None
    new_loss: float | None = None
    words: tuple[str, ...] = ()
    share_in_train: float | None = None
    limit: str = ""
    ensemble: EnsembleEstimate | None = None

    @property
    def gap(self) -> float | None:
        """Dev loss minus train loss, each exact over its split; None where one is unknown."""
        if self.train_loss is None or self.dev_loss is None:
            return None
        return self.dev_loss - self.train_loss


def check_model(corpus: Corpus, model: Model | None) -> ModelCheck:
    """Compare a model with the counting baselines, and sample from it.

    Takes about a second for 30,000 names, and a few seconds for a file of any size: of more than
    MAX_WORDS words, only the first ones of each split are counted and measured.

    Args:
        corpus: the words that the model was trained on.
        model: without it, or if its weights are not finite, only the baselines are computed.
    """
    vocab = corpus.vocab
    part = first_words(corpus, *MAX_WORDS)
    dev = list_words(part.dev, vocab)
    usable = model is not None and model.is_finite()
    words = []
    if model is not None and usable:
        words = sample_words(model, vocab, N_SAMPLED, seed=model.config.seed)
    train = find_words(corpus.train, vocab, [*dev, *words])

    check = ModelCheck(
        rungs=ladder(part, examples_of(dev, lambda word: word not in train)),
        lectures=LECTURES if corpus.sha256 in NAMES else {},
        n_dev=len(dev),
        n_new=sum(word not in train for word in dev),
        limit=_describe_limit(corpus, part),
    )
    if model is None or not usable:
        return check

    lengths = np.array([len(word) + 1 for word in dev])  # with the boundary that ends a word
    losses = score_words(model, vocab, dev) * lengths
    is_new = np.array([word not in train for word in dev])
    fresh = [word for word in dict.fromkeys(words) if word and word not in train]
    return dataclasses.replace(
        check,
        train_loss=None if check.limit else evaluate(model, corpus.train),
        dev_loss=float(losses.sum() / lengths.sum()),
        new_loss=float(losses[is_new].sum() / lengths[is_new].sum()) if is_new.any() else None,
        words=tuple(fresh[:N_SHOWN]),
        share_in_train=sum(word in train for word in words) / len(words),
    )


def _describe_limit(corpus: Corpus, part: Corpus) -> str:
    """Return the sentence about words that are left out; "" if there are none."""
    if part.n_words == corpus.n_words:
        return ""
    (n_train, n_dev), (all_train, all_dev) = part.n_words, corpus.n_words
    return (
        f"The file is large: {n_train:,} of {all_train:,} train words are counted. The counting "
        f"models, and losses on new words, are measured with {n_dev:,} of {all_dev:,} dev words."
    )


def plain_value(value: Any) -> Any:
    """Return a value of a table as a Python value; 200.0, in a column with gaps, becomes 200."""
    value = value.item() if hasattr(value, "item") else value
    if isinstance(value, float) and value.is_integer() and abs(value) < 2**53:
        return int(value)
    return value
