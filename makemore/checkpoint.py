"""Checkpoints: a trained model with its config and vocabulary in one safetensors file.

The file contains a digest of all its content, so `load_checkpoint` refuses a file that was changed
or damaged. The digest is not a signature: it does not protect against deliberate changes.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from makemore.config import Config, parse_config
from makemore.errors import UserError, check_input
from makemore.model import MLP, parameter_shapes
from makemore.words import Vocab

FORMAT = "makemore-mlp/2"
WITHOUT_DIGEST = "makemore-mlp/1"  # older format, still read
DIGEST = "digest"  # key of the metadata


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
    path = Path(path)
    fields = {
        "format": FORMAT,
        "config": model.config.model_dump(),
        "vocab": "".join(vocab.symbols[1:]),
        **metadata,
    }
    try:
        texts = {
            key: json.dumps(value, allow_nan=False, ensure_ascii=False)
            for key, value in fields.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the metadata cannot be written as JSON ({error}).") from None

    tensors = {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()
    }
    texts[DIGEST] = json.dumps(_digest(tensors, texts))
    _write_atomically(path, _sort_header(safetensors.torch.save(tensors, texts)))
    return path


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read a file written by `save_checkpoint`.

    The format contains only numbers and text, so reading it never runs code.

    Raises:
        UserError: the file is missing, truncated, inconsistent, changed after it was saved, or not
            a checkpoint of this project.
    """
    path = Path(path)
    tensors, texts = _read(path)
    try:
        fields = {key: json.loads(text) for key, text in sorted(texts.items())}
    except json.JSONDecodeError:
        fields = {}

    version = fields.pop("format", None)
    if version not in (FORMAT, WITHOUT_DIGEST):
        raise UserError(
            f"{path}: is not a checkpoint of this project (its format is not {FORMAT!r})."
        )
    config, vocab = _parse_header(path, fields.pop("config", None), fields.pop("vocab", None))
    _check_tensors(path, tensors, parameter_shapes(config, len(vocab)))
    digest = fields.pop(DIGEST, None)
    if version == FORMAT and digest != _digest(tensors, texts):
        raise UserError(
            f"{path}: does not match its own digest; the file was changed or damaged, "
            "use another copy."
        )

    model = MLP(config, len(vocab))
    model.load_state_dict(tensors)
    return Checkpoint(model, vocab, fields)


def _parse_header(path: Path, config_fields: Any, characters: Any) -> tuple[Config, Vocab]:
    """Return the config and the vocabulary of a file, or raise a UserError."""
    if not isinstance(config_fields, dict) or not isinstance(characters, str):
        raise UserError(
            f"{path}: lacks its config or its vocabulary; the file was changed after it was saved."
        )
    config = parse_config(config_fields, str(path))
    vocab = Vocab(characters)
    if len(set(vocab.symbols)) != len(vocab):
        raise UserError(
            f"{path}: its vocabulary has a character twice; "
            "the file was changed after it was saved."
        )
    return config, vocab


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


def _digest(tensors: dict[str, torch.Tensor], texts: dict[str, str]) -> str:
    """Return the SHA-256 in hex of the weights and of all metadata except the digest."""
    state = hashlib.sha256(
        json.dumps(sorted((k, v) for k, v in texts.items() if k != DIGEST)).encode()
    )
    for name, tensor in sorted(tensors.items()):
        state.update(name.encode())
        state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """Return the tensors and the metadata of a safetensors file."""
    try:
        check_input(path, "the path of a checkpoint")
        with safetensors.safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in sorted(file.keys())}
            return tensors, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a checkpoint.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: is cut short or not a safetensors file ({error}).") from None


def _sort_header(raw: bytes) -> bytes:
    """Sort the keys of the header; safetensors writes metadata in random order."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned to 8 bytes
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _write_atomically(path: Path, raw: bytes) -> None:
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with temporary.open("xb") as file:
                file.write(raw)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None
