"""Ensembles: trained models whose probabilities are averaged, mixed with a counting model.

One safetensors file contains the members, their weights and the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from makemore.checkpoint import build_model, load_checkpoint, parse_vocab
from makemore.config import parse_config
from makemore.data import Examples
from makemore.errors import UserError
from makemore.kneser_ney import KneserNey
from makemore.model import MLP, Predictor
from makemore.model_class import NeedsClass
from makemore.models import ModelClass, state_of
from makemore.tensor_file import TensorFile, read_tensors, write_tensors
from makemore.words import Vocab

FORMAT = "makemore-ensemble/1"
LEAST = float(np.finfo(np.float32).tiny)  # probability; smaller ones have no finite logarithm
CHUNK = 1024  # contexts computed at once


@dataclass(frozen=True)
class Ensemble:
    """The weighted mean of the members' probabilities, mixed with a counting model.

    p = (1 - counts_weight) sum_m weights[m] p_m + counts_weight p_counts

    Attributes:
        models: the members.
        weights: one for each member; they sum to 1.
        vocab: the vocabulary of all members.
        counts: the counting model; None without one.
        counts_weight: its weight, from 0 to 1.
        metadata: JSON values: losses, the words, and where each member comes from.
    """

    models: tuple[MLP, ...]
    weights: tuple[float, ...]
    vocab: Vocab
    counts: KneserNey | None
    counts_weight: float
    metadata: dict[str, Any]

    @property
    def block_size(self) -> int:
        """Characters of context that the longest member needs."""
        sizes = [model.block_size for model in self.models]
        return max(sizes + ([self.counts.block_size] if self.counts else []))

    def is_finite(self) -> bool:
        """Return whether all weights of all members are finite."""
        return all(model.is_finite() for model in self.models)

    def probabilities(self, contexts: np.ndarray | Tensor) -> np.ndarray:
        """Return the probability of each symbol after each context.

        Args:
            contexts: (N, T) integers, T at least `block_size`.

        Returns:
            (N, V) float32; each row sums to 1.
        """
        X = torch.as_tensor(np.asarray(contexts).astype(np.int64))
        table = np.empty((len(X), len(self.vocab)), np.float32)
        for start in range(0, len(X), CHUNK):
            table[start : start + CHUNK] = self._mix(X[start : start + CHUNK])
        return table

    def __call__(self, X: Tensor) -> Tensor:
        """Return the logarithms of the probabilities (B, V) for contexts (B, T) int64."""
        return torch.from_numpy(np.log(np.maximum(self._mix(X), LEAST)))

    def _mix(self, X: Tensor) -> np.ndarray:
        """Return the probabilities (B, V) float64 for contexts (B, T) int64."""
        mixed = np.zeros((len(X), len(self.vocab)))
        for model, weight in zip(self.models, self.weights, strict=True):
            mixed += weight * predict(model, X)
        if self.counts is not None:
            counted = self.counts.probabilities(X.numpy())
            mixed = (1 - self.counts_weight) * mixed + self.counts_weight * counted
        return mixed


@torch.no_grad()
def predict(model: Predictor, X: Tensor) -> np.ndarray:
    """Return a model's probabilities (B, V) float64; contexts may be longer than its block size."""
    return torch.softmax(model(X[:, -model.block_size :]).double(), 1).numpy()


def likelihoods(model: Predictor, examples: Examples) -> np.ndarray:
    """Return the probability that a model gives to the target of each example, (N,) float64.

    Each different context is computed once.
    """
    T = model.block_size
    positions = examples.distinct(T).positions
    context_of = examples.context_of(T)
    targets = examples.targets.astype(np.int64)
    order = np.argsort(context_of, kind="stable")
    ends = np.searchsorted(context_of[order], np.arange(len(positions) + 1))
    result = np.empty(len(examples))
    for start in range(0, len(positions), CHUNK):
        stop = min(start + CHUNK, len(positions))
        X = torch.from_numpy(examples.windows(T, positions[start:stop]).astype(np.int64))
        rows = order[ends[start] : ends[stop]]  # the examples with these contexts
        result[rows] = predict(model, X)[context_of[rows] - start, targets[rows]]
    return np.maximum(result, LEAST)


def save(path: Path | str, ensemble: Ensemble) -> Path:
    """Write an ensemble to one file; see `write_tensors`.

    Raises:
        OSError: the path cannot be written; its filename is the path.
    """
    tensors: dict[str, Tensor] = {}
    for m, model in enumerate(ensemble.models):
        tensors |= {f"members.{m}.{name}": tensor for name, tensor in state_of(model).items()}
    if ensemble.counts is not None:
        ngrams = ensemble.counts.ngrams
        # torch knows few operations on uint16, the type of large vocabularies.
        small = ngrams.dtype == np.uint8
        tensors["counts.ngrams"] = torch.from_numpy(ngrams if small else ngrams.astype(np.int32))
        tensors["counts.counts"] = torch.from_numpy(ensemble.counts.counts)
    fields = {
        "format": FORMAT,
        "vocab": "".join(ensemble.vocab.symbols[1:]),
        "configs": [model.config.model_dump() for model in ensemble.models],
        "weights": list(ensemble.weights),
        "counts_weight": ensemble.counts_weight,
        "metadata": ensemble.metadata,
    }
    return write_tensors(path, tensors, fields)


def load(path: Path | str) -> Ensemble:
    """Read a file written by `save`; reading it never runs code.

    Raises:
        UserError: the file is missing, truncated, changed after it was saved, or not an ensemble
            of this project.
    """
    file = read_tensors(path)
    if not is_ensemble(file):
        raise UserError(
            f"{path}: is not an ensemble of this project; give a file that "
            "experiments/ensemble.py wrote."
        )
    file.check_digest()
    return _parse(file)


def is_ensemble(file: TensorFile) -> bool:
    """Return whether a file says that it holds an ensemble."""
    return file.fields.get("format") == FORMAT


def _parse(file: TensorFile) -> Ensemble:
    fields = file.fields
    vocab = parse_vocab(file.path, fields["vocab"])
    models = []
    for m, config in enumerate(fields["configs"]):
        start = f"members.{m}."
        tensors = {
            name.removeprefix(start): tensor
            for name, tensor in file.tensors.items()
            if name.startswith(start)
        }
        models.append(
            build_model(file.path, tensors, parse_config(config, str(file.path)), len(vocab))
        )
    counts = None
    if "counts.ngrams" in file.tensors:
        ngrams = file.tensors["counts.ngrams"].numpy()
        counts = KneserNey(ngrams, file.tensors["counts.counts"].numpy(), len(vocab))
    return Ensemble(
        tuple(models),
        tuple(fields["weights"]),
        vocab,
        counts,
        fields["counts_weight"],
        fields["metadata"],
    )


@dataclass(frozen=True)
class Trained:
    """A trained model of any kind: a network or an ensemble.

    Attributes:
        model: predicts the next character.
        vocab: the vocabulary that it was trained with.
        metadata: JSON values: losses, source of the data.
    """

    model: Predictor
    vocab: Vocab
    metadata: dict[str, Any]


def load_trained(path: Path | str, model: ModelClass | None = None) -> Trained:
    """Read a checkpoint or an ensemble.

    Args:
        path: the file.
        model: class of the user's model; None for an MLP or an ensemble.

    Raises:
        NeedsClass: the model of the file is of another class.
        UserError: the file is neither, or it is damaged.
    """
    if is_ensemble(read_tensors(path)):
        if model is not None:
            raise NeedsClass(f"{path}: is an ensemble, not a {model.__name__}; leave --model out.")
        ensemble = load(path)
        return Trained(ensemble, ensemble.vocab, ensemble.metadata)
    checkpoint = load_checkpoint(path, model)
    return Trained(checkpoint.model, checkpoint.vocab, checkpoint.metadata)
