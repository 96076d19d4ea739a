"""A safetensors file: named tensors, JSON values, and a digest of both.

A file that was changed or damaged does not match its digest. The digest is not a signature: it does
not protect against deliberate changes.
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

from makemore.errors import UserError, check_input

DIGEST = "digest"  # key of the metadata


@dataclass(frozen=True)
class TensorFile:
    """Content of a file.

    Attributes:
        path: of the file, for messages.
        tensors: by name.
        fields: the JSON values by name; empty if the metadata is not JSON.
    """

    path: Path
    tensors: dict[str, torch.Tensor]
    fields: dict[str, Any]
    _texts: dict[str, str]

    def check_digest(self) -> None:
        """Compare the content with the digest in the file.

        Raises:
            UserError: they differ.
        """
        texts = self._texts
        if texts.get(DIGEST) != json.dumps(_digest(self.tensors, texts)):
            raise UserError(
                f"{self.path}: does not match its own digest; the file was changed or damaged, "
                "use another copy."
            )


def write_tensors(
    path: Path | str, tensors: dict[str, torch.Tensor], fields: dict[str, Any]
) -> Path:
    """Write tensors and JSON values to one file.

    The same input gives the same bytes. The write is atomic: a temporary file in the same folder
    is renamed to `path`. Missing folders are created.

    Returns:
        The path.

    Raises:
        OSError: the path cannot be written; its filename is the path.
        ValueError: a field is not JSON.
    """
    path = Path(path)
    try:
        texts = {
            key: json.dumps(value, allow_nan=False, ensure_ascii=False)
            for key, value in fields.items()
        }
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: the metadata cannot be written as JSON ({error}).") from None
    texts[DIGEST] = json.dumps(_digest(tensors, texts))
    _write_atomically(path, _sort_header(safetensors.torch.save(tensors, texts)))
    return path


def read_tensors(path: Path | str) -> TensorFile:
    """Read a file; its digest is checked by `TensorFile.check_digest`.

    The format contains only numbers and text, so reading it never runs code.

    Raises:
        UserError: the file is missing, truncated or not a safetensors file.
    """
    path = Path(path)
    tensors, texts = _read(path)
    try:
        fields = {key: json.loads(text) for key, text in sorted(texts.items())}
    except json.JSONDecodeError:
        fields = {}
    fields.pop(DIGEST, None)
    return TensorFile(path, tensors, fields, texts)


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
        raise UserError(
            f"{path}: no such file; give the path of a checkpoint, or models:/NAME@champion."
        ) from None
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
