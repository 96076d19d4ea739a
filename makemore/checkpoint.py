"""Checkpoints: a trained model with its config and vocabulary in one safetensors file.

A model of the user's own class is loaded with the class that the user names. The file has the
name of the class only for messages, so a checkpoint never decides what code runs.

The file contains a digest of all its content, so `load_checkpoint` refuses a file that was changed
or damaged. The digest is not a signature: it does not protect against deliberate changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar, overload

import torch

from makemore.config import Config, parse_config
from makemore.errors import UserError
from makemore.model import MLP, parameter_shapes
from makemore.model_class import check_class, source_of
from makemore.models import (
    Model,
    ModelClass,
    Network,
    build,
    class_of,
    config_class_of,
    state_of,
)
from makemore.tensor_file import read_tensors, write_tensors
from makemore.words import Vocab

FORMAT = "makemore-mlp/2"
WITHOUT_DIGEST = "makemore-mlp/1"  # older format, still read
OF_CLASS = "makemore-model/1"  # a model of the user's own class


AnyModel = TypeVar("AnyModel", bound=Model)


@dataclass(frozen=True)
class Checkpoint(Generic[AnyModel]):
    """Content of a checkpoint file.

    Attributes:
        model: on the CPU; its config is `model.config`.
        vocab: the vocabulary that the model was trained with.
        metadata: the other values given to `save_checkpoint`: losses, source of the data.
    """

    model: AnyModel
    vocab: Vocab
    metadata: dict[str, Any]


def save_checkpoint(path: Path | str, model: Model, vocab: Vocab, **metadata: Any) -> Path:
    """Write a model, its config and its vocabulary to one file.

    The same input gives the same bytes. The write is atomic: a temporary file in the same folder
    is renamed to `path`. Missing folders are created.

    Args:
        path: where to write; an existing file is replaced.
        model: the model.
        vocab: the vocabulary that the model was trained with.
        metadata: JSON values to keep with the model, for example dev_loss=2.17.

    Returns:
        The path.

    Raises:
        OSError: the path cannot be written; its filename is the path.
        ValueError: the metadata is not JSON.
    """
    model_class = class_of(model)
    kind = {"format": FORMAT}
    if model_class is not None:
        kind = {"format": OF_CLASS, "model": source_of(model_class)}
    fields = {
        **kind,
        "config": model.config.model_dump(),
        "vocab": "".join(vocab.symbols[1:]),
        **metadata,
    }
    return write_tensors(path, state_of(model), fields)


@overload
def load_checkpoint(path: Path | str, model: None = None) -> Checkpoint[MLP]: ...
@overload
def load_checkpoint(path: Path | str, model: ModelClass | None) -> Checkpoint[Model]: ...
def load_checkpoint(path: Path | str, model: ModelClass | None = None) -> Checkpoint[Any]:
    """Read a file written by `save_checkpoint`.

    The format contains only numbers and text, so reading it never runs code.

    Args:
        path: the file.
        model: class of the user's model; None for an MLP.

    Raises:
        NeedsClass: the model of the file is of another class.
        UserError: the file is missing, truncated, inconsistent, changed after it was saved, or not
            a checkpoint of this project.
    """
    path = Path(path)
    file = read_tensors(path)
    fields = file.fields
    version = fields.pop("format", None)
    if version not in (FORMAT, WITHOUT_DIGEST, OF_CLASS):
        raise UserError(
            f"{path}: is not a checkpoint of this project (its format is not {FORMAT!r})."
        )
    if version == OF_CLASS:
        file.check_digest()
    check_class(f"{path}: is a checkpoint", fields.pop("model", None), model)
    config, vocab = _parse_header(
        path, fields.pop("config", None), fields.pop("vocab", None), config_class_of(model)
    )
    if model is None:
        loaded: Model = build_model(path, file.tensors, config, len(vocab))
    else:
        loaded = _build_network(path, file.tensors, config, len(vocab), model)
    if version == FORMAT:
        file.check_digest()
    return Checkpoint(loaded, vocab, fields)


def _build_network(
    path: Path,
    tensors: dict[str, torch.Tensor],
    config: Config,
    vocab_size: int,
    model: ModelClass,
) -> Network:
    """Return a model of the user's class with these parameters and buffers."""
    network = Network(build(model, config, vocab_size), config, vocab_size)
    expected = {name: (tuple(t.shape), t.dtype) for name, t in state_of(network).items()}
    found = {name: (tuple(t.shape), t.dtype) for name, t in tensors.items()}
    differing = sorted(name for name, _ in expected.items() ^ found.items())
    if differing:
        raise UserError(
            f"{path}: does not fit the class {model.__name__}, which differs in {differing[0]}; "
            "give --model the class as it was when the model was trained."
        )
    network.module.load_state_dict(tensors)
    if not network.is_finite():
        raise UserError(f"{path}: a weight is not finite; the file is damaged.")
    return network


def build_model(
    path: Path, tensors: dict[str, torch.Tensor], config: Config, vocab_size: int
) -> MLP:
    """Return a model with these parameters.

    Args:
        path: of the file, for messages.

    Raises:
        UserError: the parameters do not have the shapes of the config, or are not finite.
    """
    _check_tensors(path, tensors, parameter_shapes(config, vocab_size))
    model = MLP(config, vocab_size)
    model.load_state_dict(tensors)
    return model


def _parse_header(
    path: Path, config_fields: Any, characters: Any, config_class: type[Config]
) -> tuple[Config, Vocab]:
    """Return the config and the vocabulary of a file, or raise a UserError."""
    if not isinstance(config_fields, dict) or not isinstance(characters, str):
        raise UserError(
            f"{path}: lacks its config or its vocabulary; the file was changed after it was saved."
        )
    config = parse_config(config_fields, str(path), config_class)
    return config, parse_vocab(path, characters)


def parse_vocab(path: Path, characters: str) -> Vocab:
    """Return the vocabulary of a file.

    Raises:
        UserError: a character occurs twice.
    """
    vocab = Vocab(characters)
    if len(set(vocab.symbols)) != len(vocab):
        raise UserError(
            f"{path}: its vocabulary has a character twice; "
            "the file was changed after it was saved."
        )
    return vocab


def _check_tensors(
    path: Path, tensors: dict[str, torch.Tensor], expected: dict[str, tuple[int, ...]]
) -> None:
    """Raise a UserError unless the tensors are finite float32 of the expected shapes."""
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    if shapes != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(
            f"{path}: its config needs float32 weights {expected}, but the file has {shapes}."
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{path}: a weight is not finite; the file is damaged.")
