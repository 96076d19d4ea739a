"""Teacher: the probabilities that another model predicts for the train split, as soft targets.

With a teacher, training minimises the distillation loss of Hinton et al. 2015 at temperature 1:

    (1 - weight) * -log p(y)  +  weight * -sum over v of q(v) log p(v)

for a true target y, a model's probabilities p and the teacher's q. This is the cross-entropy with
the target (1 - weight) * onehot(y) + weight * q, so its gradient at the logits is p minus that.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from makemore.errors import UserError
from makemore.windows import number_windows, rank

if TYPE_CHECKING:
    from makemore.data import Corpus
    from makemore.model import Predictor

CHUNK = 8192  # contexts that the teacher's model predicts at once


@dataclass(frozen=True)
class Teacher:
    """The soft targets of a train split: one row of probabilities for each distinct context.

    The contexts are those of the teacher's model, which may be longer than those of the model that
    is trained. So training needs the row of an example, and not of a context.

    Attributes:
        weight: of the soft targets, 0 to 1; the true targets have 1 - weight.
        table: (M, V) float32, the probabilities of M contexts.
        rows: (N,) int32, the row of each train example.
        source: name of the teacher's file, for display.
        sha256: of the teacher's file, in hex.
    """

    weight: float
    table: np.ndarray
    rows: np.ndarray
    source: str = ""
    sha256: str = ""

    @classmethod
    def of(
        cls, model: Predictor, corpus: Corpus, weight: float, source: str = "", sha256: str = ""
    ) -> Teacher:
        """Compute the soft targets of a corpus; each distinct context is predicted once.

        Args:
            model: the teacher's model, of the corpus' vocabulary.
            corpus: the words; only the train split is used.
            weight, source, sha256: the attributes.

        Raises:
            UserError: the weight is not between 0 and 1.
        """
        if not 0 <= weight <= 1:
            raise UserError(f"the teacher's weight must be between 0 and 1, but got {weight}.")
        train = corpus.train
        numbers, bound = number_windows(train.stream, train.positions, -model.block_size, 0)
        rows, n = rank(numbers, bound)
        examples = np.zeros(n, np.intp)
        examples[rows] = np.arange(len(rows))  # an example of each context
        table = np.concatenate(
            [
                _predict(model, train.contexts(model.block_size, piece))
                for piece in np.array_split(examples, -(-n // CHUNK))
            ]
        )
        return cls(weight, table, rows.astype(np.int32), source, sha256)

    @property
    def record(self) -> dict[str, str | float]:
        """The file and the weight, for checkpoints and MLflow."""
        return {"source": self.source, "sha256": self.sha256, "weight": self.weight}

    def targets(self, examples: np.ndarray, symbols: np.ndarray) -> np.ndarray:
        """Return the mixed targets (n, V) of some train examples, in the dtype of the table.

        Args:
            examples: (n,) indices of train examples.
            symbols: (n,) their true targets.
        """
        mixed = self.weight * self.table[self.rows[examples]]
        mixed[np.arange(len(mixed)), symbols] += 1 - self.weight
        return mixed


def _predict(model: Predictor, contexts: np.ndarray) -> np.ndarray:
    """Return the probabilities (n, V) float32 after contexts (n, T)."""
    import torch  # slow to import

    with torch.no_grad():
        logits = model(torch.from_numpy(contexts.astype(np.int64)))
        return torch.softmax(logits.double(), 1).float().numpy()
