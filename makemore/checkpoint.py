"""A trained model as one safetensors file: the weights, and beside them everything needed to use them.

A digest over all of it is kept in the file, so that what was changed or damaged after saving is refused.
It is no signature: who writes the digest anew is not found out.
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

from makemore.config import parse_config
from makemore.errors import UserError
from makemore.model import MLP, parameter_shapes
from makemore.words import Vocab

FORMAT = "makemore-mlp/2"
WITHOUT_DIGEST = "makemore-mlp/1"  # still read
DIGEST = "digest"  # key of the metadata


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds.

    Attributes:
        model: on the CPU; its config is `model.config`.
        metadata: what else was given to `save_checkpoint`: losses, where the data came from.
    """

    model: MLP
    vocab: Vocab
    metadata: dict[str, Any]


def save_checkpoint(path: Path | str, model: MLP, vocab: Vocab, **metadata: Any) -> Path:
    """Write a model, its config and its vocabulary to one file; the same input gives the same bytes.

    The file appears whole or not at all: it is written beside its place and moved there. Missing folders are made.

    Args:
        metadata: JSON values to keep with the model, for example dev_loss=2.17.

    Returns:
        The path.

    Raises:
        OSError: the path cannot be written; it names the path.
        UserError: the metadata is not JSON; one sentence.
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
        raise UserError(f"{path}: the metadata cannot be kept as JSON ({error}).") from None
    tensors = {
        name: parameter.detach().cpu().contiguous() for name, parameter in model.named_parameters()
    }
    texts[DIGEST] = json.dumps(_digest(tensors, texts))
    _write_whole(path, _sort_header(safetensors.torch.save(tensors, texts)))
    return path


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Read what `save_checkpoint` wrote. No code in the file is run: the format holds numbers and text only.

    Raises:
        UserError: the file is missing or cut short, is no checkpoint of this project, its parts contradict each other,
            or it was changed after it was saved; one sentence that names the file.
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
    config_fields, characters = fields.pop("config", None), fields.pop("vocab", None)
    digest = fields.pop(DIGEST, None)
    if not isinstance(config_fields, dict) or not isinstance(characters, str):
        raise UserError(
            f"{path}: lacks its config or its vocabulary; the file was changed after it was saved."
        )
    config, vocab = parse_config(config_fields, str(path)), Vocab(characters)
    if len(set(vocab.symbols)) != len(vocab):
        raise UserError(
            f"{path}: its vocabulary holds a character twice; the file was changed after it was saved."
        )
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    expected = parameter_shapes(config, len(vocab))
    if shapes != expected or any(tensor.dtype != torch.float32 for tensor in tensors.values()):
        raise UserError(
            f"{path}: its config asks for float32 weights {expected}, but it holds {shapes}."
        )
    if not all(bool(torch.isfinite(tensor).all()) for tensor in tensors.values()):
        raise UserError(f"{path}: a weight is not finite; the file is damaged.")
    if version == FORMAT and digest != _digest(tensors, texts):
        raise UserError(
            f"{path}: does not match its own digest; the file was changed or damaged after it was saved."
        )
    model = MLP(config, len(vocab))
    model.load_state_dict(tensors)
    return Checkpoint(model, vocab, fields)


def _digest(tensors: dict[str, torch.Tensor], texts: dict[str, str]) -> str:
    """SHA-256 in hex of the weights and of all metadata but the digest itself."""
    state = hashlib.sha256(
        json.dumps(sorted((k, v) for k, v in texts.items() if k != DIGEST)).encode()
    )
    for name, tensor in sorted(tensors.items()):
        state.update(name.encode())
        state.update(tensor.contiguous().numpy().data)
    return state.hexdigest()


def _read(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    try:
        with safetensors.safe_open(path, "pt") as file:
            return {
                name: file.get_tensor(name) for name in sorted(file.keys())
            }, file.metadata() or {}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give the path of a checkpoint.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}).") from None
    except safetensors.SafetensorError as error:
        raise UserError(f"{path}: is cut short, or is no safetensors file ({error}).") from None


def _sort_header(raw: bytes) -> bytes:
    """Order the header's keys: safetensors writes metadata in an order that changes from process to process."""
    end = 8 + int.from_bytes(raw[:8], "little")
    header = json.dumps(json.loads(raw[8:end]), sort_keys=True, separators=(",", ":")).encode()
    header += b" " * (-len(header) % 8)  # the tensors stay aligned to 8 bytes
    return len(header).to_bytes(8, "little") + header + raw[end:]


def _write_whole(path: Path, raw: bytes) -> None:
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
