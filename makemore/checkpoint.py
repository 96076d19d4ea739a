"""Checkpoints: a trained model with its config and vocabulary in one safetensors file.

The file contains a digest of all its content, so `load_checkpoint` refuses a file that was changed
or damaged. The digest is not a signature: it does not protect against deliberate changes.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from makemore.config import Config, parse_config
from makemore.errors import UserError
from makemore.model import MLP, parameter_shapes
from makemore.tensor_file import read_tensors, write_tensors
from makemore.words import Vocab

FORMAT = "makemore-mlp/2"
WITHOUT_DIGEST = "makemore-mlp/1"  # older format, still read


@dataclass(frozen=True)
class Checkpoint:
    """Content of a checkpoint file.

    Attributes:
        model: on the CPU; its config is `model.config`.
        vocab: the vocabulary that the model was trained with.
        metadata: the other values given to `save_checkpoint`: losses, source of the data.
    """

    model: MLP
    vocab: Vocab
    metadata: dict[str, Any]


def save_checkpoint(path: Path | str, model: MLP, vocab: Vocab, **metadata: Any) -> Path:
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
    fields = {
        "format": FORMAT,
        "config": model.config.model_dump(),
        "vocab": "".join(vocab.symbols[1:]),
        **metadata,
    }
    return write_tensors(path, tensors_of(model), fields)


def tensors_of(model: MLP) -> dict[str, torch.Tensor]:
    """Return the parameters by name, on the CPU."""
    return {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()
    }


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file written by `save_checkpoint`.

    The format contains only numbers and text, so reading it never runs code.

    Raises:
        UserError: the file is missing, truncated, inconsistent, changed after it was saved, or not
            a checkpoint of this project.
    """
    path = Path(path)
    file = read_tensors(path)
    fields = file.fields
    version = fields.pop("format", None)
    if version not in (FORMAT, WITHOUT_DIGEST):
        raise UserError(
            f"{path}: is not a checkpoint of this project (its format is not {FORMAT!r})."
        )
    config, vocab = _parse_header(path, fields.pop("config", None), fields.pop("vocab", None))
    model = build_model(path, file.tensors, config, len(vocab))
    if version == FORMAT:
        file.check_digest()
    return Checkpoint(model, vocab, fields)


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


def _parse_header(path: Path, config_fields: Any, characters: Any) -> tuple[Config, Vocab]:
    """Return the config and the vocabulary of a file, or raise a UserError."""
    if not isinstance(config_fields, dict) or not isinstance(characters, str):
        raise UserError(
            f"{path}: lacks its config or its vocabulary; the file was changed after it was saved."
        )
    return parse_config(config_fields, str(path)), parse_vocab(path, characters)


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
