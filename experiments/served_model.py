"""What MLflow loads and serves of a registered model: prefixes in, names with their log-likelihood out.

MLflow keeps this file beside the checkpoint and runs it wherever the model is loaded, so it imports the installed
makemore package and nothing else of this project. No pickle is involved.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from makemore.checkpoint import load_checkpoint
from makemore.errors import UserError
from makemore.sampling import sample_words, score_words

CHECKPOINT = "checkpoint"  # the artifact's name
DEFAULTS = {"n": 1, "temperature": 1.0, "seed": 0}  # of the optional columns
MAX_NAMES = 100_000  # of one row, so that a request cannot fill the memory


class NamesModel(PythonModel):
    """Names that begin with a prefix, or, with the parameter `probabilities`, what may follow the prefix."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint.

        Raises:
            UserError: it is damaged; one sentence.
        """
        loaded = load_checkpoint(context.artifacts[CHECKPOINT])
        self.model, self.vocab = loaded.model, loaded.vocab

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answer a DataFrame with the column prefix and, each optional, n, temperature and seed.

        Args:
            context: unused; MLflow's interface has it.
            model_input: a row a request; "" asks for names with any beginning.
            params: {"probabilities": True} asks for the next character's probabilities in place of names.

        Returns:
            A row a name, in the order of the requests: prefix, name, log_likelihood (nats, of the whole name and its
            end, at temperature 1, whatever it was drawn at) and nats_per_character (minus that over len(name) + 1).
            With `probabilities`, a row a request: prefix, then a column for each symbol; the first symbol, "." unless
            names contain it, is the end of the name.

        Raises:
            MlflowException: a prefix holds a character that the model does not know, or a number is out of range; a
                server answers 400 with its sentence.
        """
        try:
            return self._answer(model_input, bool((params or {}).get("probabilities")))
        except ValueError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _answer(self, asked: pd.DataFrame, probabilities: bool) -> pd.DataFrame:
        rows = [
            {**DEFAULTS, **{k: v for k, v in row.items() if pd.notna(v)}}
            for row in asked.to_dict("records")
        ]
        if probabilities:
            return self._probabilities([row.get("prefix", "") for row in rows])
        drawn = [(row.get("prefix", ""), name) for row in rows for name in self._names(row)]
        prefixes, names = [prefix for prefix, _ in drawn], [name for _, name in drawn]
        scores = score_words(self.model, self.vocab, names)
        totals = [
            -float(score) * (len(name) + 1) for score, name in zip(scores, names, strict=True)
        ]
        columns = {
            "prefix": prefixes,
            "name": names,
            "log_likelihood": totals,
            "nats_per_character": scores,
        }
        return pd.DataFrame(columns)

    def _names(self, row: dict[str, Any]) -> list[str]:
        n, seed = int(row["n"]), int(row["seed"])
        if not 0 <= n <= MAX_NAMES:
            raise UserError(f"n must be between 0 and {MAX_NAMES:,}, but got {n}.")
        temperature, prefix = float(row["temperature"]), row.get("prefix", "")
        return sample_words(
            self.model, self.vocab, n, seed=seed, temperature=temperature, prefix=prefix
        )

    @torch.no_grad()
    def _probabilities(self, prefixes: list[str]) -> pd.DataFrame:
        boundary = self.vocab.boundary
        if any(boundary in prefix for prefix in prefixes):
            raise UserError(f"a prefix holds {boundary!r}, which ends a word; leave it out.")
        T = self.model.config.block_size
        contexts = [([0] * T + self.vocab.encode(prefix))[-T:] for prefix in prefixes]
        X = torch.tensor(contexts, dtype=torch.int64).view(-1, T)  # (N, T)
        rows = torch.softmax(self.model(X).double(), 1).numpy()  # (N, V)
        table = pd.DataFrame(rows, columns=list(self.vocab.symbols))
        table.insert(0, "prefix", prefixes)
        return table


mlflow.models.set_model(NamesModel())
