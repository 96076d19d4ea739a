"""Serve a registered model through MLflow: prefixes in, names with their log-likelihood out.

MLflow stores a copy of this file with the checkpoint and runs it wherever the model is loaded.
So it imports only the installed makemore package, and no other code of this project. The stored
model holds no pickle.
"""

from __future__ import annotations

from typing import Any

import mlflow
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import PythonModel, PythonModelContext

from makemore.ensemble import load_trained, predict
from makemore.errors import UserError
from makemore.model_class import load_model_class
from makemore.sampling import sample_words, score_words

# Names of the artifacts. The code is the file of a user's model, stored because the user named it.
CHECKPOINT = "checkpoint"
CODE = "code"
DEFAULTS = {"n": 1, "temperature": 1.0, "seed": 0}  # of the optional columns
MAX_NAMES = 100_000  # per row, so that a request cannot fill the memory


class NamesModel(PythonModel):
    """Generate names that begin with a prefix, or return next-character probabilities."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read the checkpoint, or the ensemble.

        Raises:
            UserError: the file is damaged.
        """
        model_class = None
        if (name := (context.model_config or {}).get("class")) is not None:
            model_class = load_model_class(f"{context.artifacts[CODE]}:{name}")
        loaded = load_trained(context.artifacts[CHECKPOINT], model_class)
        self.model = loaded.model
        self.vocab = loaded.vocab

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Answer a DataFrame with the column prefix and the optional columns n, temperature, seed.

        Args:
            context: unused; MLflow's interface requires it.
            model_input: one row per request; the prefix "" allows any beginning.
            params: {"probabilities": True} asks for next-character probabilities instead of names.

        Returns:
            One row per name, in the order of the requests: prefix, name, log_likelihood (nats, of
            the whole name and its end, at temperature 1 whatever temperature it was sampled at)
            and nats_per_character (minus that over len(name) + 1). With `probabilities`, one row
            per request: prefix, then a column for each symbol; the first symbol is the end
            of the name.

        Raises:
            MlflowException: a prefix holds a character that the model does not know, or a number
                is out of range. A server answers 400 with this message.
        """
        try:
            return self._answer(model_input, bool((params or {}).get("probabilities")))
        except UserError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _answer(self, requests: pd.DataFrame, probabilities: bool) -> pd.DataFrame:
        rows = [
            {**DEFAULTS, **{key: value for key, value in row.items() if pd.notna(value)}}
            for row in requests.to_dict("records")
        ]
        if probabilities:
            return self._probabilities([row.get("prefix", "") for row in rows])

        prefixes: list[str] = []
        names: list[str] = []
        for row in rows:
            sampled = self._sample(row)
            prefixes += [row.get("prefix", "")] * len(sampled)
            names += sampled
        scores = score_words(self.model, self.vocab, names)
        log_likelihoods = [
            -float(score) * (len(name) + 1) for score, name in zip(scores, names, strict=True)
        ]
        columns = {
            "prefix": prefixes,
            "name": names,
            "log_likelihood": log_likelihoods,
            "nats_per_character": scores,
        }
        return pd.DataFrame(columns)

    def _sample(self, row: dict[str, Any]) -> list[str]:
        """Return the names for one request."""
        n = int(row["n"])
        if not 0 <= n <= MAX_NAMES:
            raise UserError(f"n must be between 0 and {MAX_NAMES:,}, but got {n}.")
        return sample_words(
            self.model,
            self.vocab,
            n,
            seed=int(row["seed"]),
            temperature=float(row["temperature"]),
            prefix=row.get("prefix", ""),
        )

    def _probabilities(self, prefixes: list[str]) -> pd.DataFrame:
        """Return the probability of each symbol after each prefix."""
        boundary = self.vocab.boundary
        if any(boundary in prefix for prefix in prefixes):
            raise UserError(f"a prefix holds {boundary!r}, which ends a word; leave it out.")
        T = self.model.block_size
        contexts = [([0] * T + self.vocab.encode(prefix))[-T:] for prefix in prefixes]
        X = torch.tensor(contexts, dtype=torch.int64).view(-1, T)  # (N, T)
        rows = predict(self.model, X)  # (N, V)
        table = pd.DataFrame(rows, columns=list(self.vocab.symbols))
        table.insert(0, "prefix", prefixes)
        return table


mlflow.models.set_model(NamesModel())
