"""What retrained models come to: their losses, the baselines beside them, and how far two configs lie apart.

The test split's words are handed in by experiments/retrain.py, the only reader.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from experiments.seeds import TRAIN, Replica
from makemore.counts import ladder, list_words
from makemore.data import Corpus, Examples
from makemore.engines import TrainResult
from makemore.engines.cpu.evaluation import evaluate
from makemore.sampling import score_words
from studies.harness.report.judge.noise import t_quantile

# The lecture's own model as first trained, on its own file of names; its test loss was never told.
LECTURE = {"train_loss": 2.126, "dev_loss": 2.17}


def join_dev(corpus: Corpus) -> Corpus:
    """The corpus with the dev words added to train; its dev split is then no measure."""
    words = [
        word for split in (corpus.train, corpus.dev) for word in list_words(split, corpus.vocab)
    ]
    return dataclasses.replace(corpus, train=Examples.of(words, corpus.vocab))


def measure(
    results: Sequence[TrainResult], corpus: Corpus, on: str, test: Sequence[str]
) -> list[Replica]:
    """The exact losses of each result, and what each test word costs it.

    Args:
        corpus: what the results were trained on.
        test: the words of the test split.
    """
    splits = {
        "train_loss": corpus.train,
        "dev_loss": corpus.dev,
        "test_loss": Examples.of(test, corpus.vocab),
    }
    if on != TRAIN:
        del splits["dev_loss"]
    lengths = np.array([len(word) + 1 for word in test])
    return [
        Replica(
            result,
            {name: evaluate(result.model, split) for name, split in splits.items()},
            score_words(result.model, corpus.vocab, test) * lengths,
        )
        for result in results
    ]


class Baseline(NamedTuple):
    """A model to stand above; `losses` has what is known of train_loss, dev_loss and test_loss."""

    name: str
    losses: dict[str, float]


def baselines(corpus: Corpus, on: str, test: Sequence[str]) -> list[Baseline]:
    """Counting models fitted on the same words as the network, and for the lecture's names the lecture's own model."""
    from studies.harness.report.judge.findings import (
        NAMES,  # brings pandas, which takes half a second to import
    )

    tested = ladder(dataclasses.replace(corpus, dev=Examples.of(test, corpus.vocab)))
    rungs = [Baseline(rung.name, {"test_loss": rung.dev_loss}) for rung in tested]
    if on != TRAIN:
        return rungs
    for rung, baseline in zip(ladder(corpus), rungs, strict=True):
        baseline.losses["dev_loss"] = rung.dev_loss
    return [*rungs, Baseline("the lecture's", LECTURE)] if corpus.sha256 in NAMES else rungs


class Difference(NamedTuple):
    """How far the test losses of two configs lie apart.

    Attributes:
        names: of the two configs.
        loss: mean test loss of the first minus that of the second, in nats per character.
        margin: half-width of its 95% interval.
        seeded: whether the interval holds what the seeds change; it takes two seeds to know.
    """

    names: tuple[str, str]
    loss: float
    margin: float
    seeded: bool

    @property
    def differs(self) -> bool:
        """Whether the difference exceeds chance."""
        return abs(self.loss) > self.margin

    @property
    def sentence(self) -> str:
        """The verdict in plain words."""
        better, other = self.names if self.loss < 0 else self.names[::-1]
        if self.differs:
            return (
                f"{better} is better than {other} by {abs(self.loss):.4f} ± {self.margin:.4f} nats"
            )
        apart = f"difference {abs(self.loss):.4f} ± {self.margin:.4f} nats"
        return f"{self.names[0]} and {self.names[1]} cannot be told apart ({apart})"

    def summary(self) -> dict[str, Any]:
        """What --json prints of it."""
        return {
            "against": self.names[1],
            "difference": self.loss,
            "margin": self.margin,
            "sentence": self.sentence,
        }


def compare(
    names: tuple[str, str], first: np.ndarray, second: np.ndarray, lengths: np.ndarray
) -> Difference:
    """Compare two configs on the test split, paired by word.

    Args:
        first: (S, W) what each of W words costs each of S seeds, its end included, in nats.
        second: the same of the other config, which may have another number of seeds.
        lengths: (W,) characters of the words, their ends included.

    Word w of c_w characters costs the two configs on average over their seeds a_w and b_w nats; the difference is
    D = sum(a_w - b_w) / sum(c_w). Its variance has two parts, which are added:

    - other words might have been drawn: that of a ratio, W / (W - 1) sum((a_w - b_w - D c_w)^2) / sum(c_w)^2;
    - other seeds might have been drawn: var / n of each config's test losses over its n seeds. With one seed each it is
      unknown and left out.

    The interval is Student's, with Welch and Satterthwaite's degrees of freedom. A word that stands in the split twice
    counts as two.
    """
    paired = first.mean(0) - second.mean(0)  # (W,)
    W, total = len(lengths), float(lengths.sum())
    D = float(paired.sum()) / total
    parts = [(W / max(1, W - 1) * float(((paired - D * lengths) ** 2).sum()) / total**2, W - 1)]
    for costs in (first, second):
        if len(costs) > 1:
            parts.append((float(np.var(costs.sum(1) / total, ddof=1)) / len(costs), len(costs) - 1))
    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / max(1, freedom) for part, freedom in parts)
    freedom = max(1, int(variance**2 / spread)) if spread > 0 else 1
    return Difference(names, D, t_quantile(freedom) * math.sqrt(variance), len(parts) == 3)
