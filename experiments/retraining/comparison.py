"""Compare two configs on the test or dev split, paired by word."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from studies.harness.store.winner.noise import t_quantile


class Difference(NamedTuple):
    """The difference between the losses of two configs on one split.

    Attributes:
        names: the names of the two configs.
        loss: mean loss of the first minus that of the second, in nats per character.
        margin: half-width of its 95% interval.
        seeded: whether the interval includes the noise of the seeds, which needs two seeds each.
    """

    names: tuple[str, str]
    loss: float
    margin: float
    seeded: bool

    @property
    def differs(self) -> bool:
        """Whether the difference is larger than chance explains."""
        return abs(self.loss) > self.margin

    @property
    def sentence(self) -> str:
        """The result in one sentence, without a full stop."""
        size = f"{abs(self.loss):.4f} ± {self.margin:.4f} nats"
        if not self.differs:
            return f"no clear difference between {self.names[0]} and {self.names[1]} ({size})"
        better, worse = self.names if self.loss < 0 else self.names[::-1]
        return f"{better} is better than {worse} by {size}"

    def summary(self) -> dict[str, Any]:
        """Return the fields for --json."""
        return {
            "against": self.names[1],
            "difference": self.loss,
            "margin": self.margin,
            "sentence": self.sentence,
        }


def compare(
    names: tuple[str, str], first: np.ndarray, second: np.ndarray, lengths: np.ndarray
) -> Difference:
    """Compare two configs on a split, paired by word.

    Word w has c_w characters and costs the two configs a_w and b_w nats, averaged over their
    seeds. The difference is D = sum(a_w - b_w) / sum(c_w). Its variance is the sum of two parts:

    - other words could have been drawn: the variance of a ratio,
      W / (W - 1) sum((a_w - b_w - D c_w)^2) / sum(c_w)^2;
    - other seeds could have been drawn: var / n of each config's losses over its n seeds.
      With one seed each it is unknown and left out.

    The interval is Student's, with the degrees of freedom of Welch and Satterthwaite. A word that
    is in the split twice counts twice.

    Args:
        names: the names of the two configs.
        first: (S, W) cost of each of W words under each of S seeds, its end included, in nats.
        second: the same for the other config, which may have another number of seeds.
        lengths: (W,) characters of the words, their ends included.
    """
    paired = first.mean(0) - second.mean(0)  # (W,)
    W = len(lengths)
    total = float(lengths.sum())
    D = float(paired.sum()) / total

    # Each part of the variance with its degrees of freedom.
    of_words = W / max(1, W - 1) * float(((paired - D * lengths) ** 2).sum()) / total**2
    parts = [(of_words, W - 1)]
    for costs in (first, second):
        if len(costs) > 1:
            of_seeds = float(np.var(costs.sum(1) / total, ddof=1)) / len(costs)
            parts.append((of_seeds, len(costs) - 1))

    variance = sum(part for part, _ in parts)
    spread = sum(part**2 / max(1, freedom) for part, freedom in parts)
    freedom = max(1, int(variance**2 / spread)) if spread > 0 else 1
    margin = t_quantile(freedom) * math.sqrt(variance)
    return Difference(names, D, margin, seeded=len(parts) == 3)
