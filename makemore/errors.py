"""Errors that a user can fix, and messages of one line."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class UserError(ValueError):
    """Bad input that the user can fix.

    The message is one sentence with the problem, the place and the remedy. Scripts print only the
    message and exit with code 2. Every other exception is a bug or a failure of the machine and
    keeps its traceback.
    """


class Outage(Exception):
    """A server that failed while a script ran; scripts print one sentence and exit with code 1."""


class ModelTooLarge(UserError):
    """A model takes more memory than the machine has; found before the memory is allocated."""


def one_line(error: BaseException, limit: int = 200) -> str:
    """Return the first line of an error's message, cut to `limit` characters.

    An error without a message gives the name of its type.
    """
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:limit]


@contextmanager
def writing(path: Path | str, flag: str) -> Iterator[None]:
    """Report a failed write to `path` as a UserError that names the flag to change.

    Args:
        path: for the message.
        flag: the flag that sets the path, for example "--out".

    Raises:
        UserError: the block raised an OSError.
    """
    try:
        yield
    except OSError as error:
        reason = error.strerror or one_line(error)
        raise UserError(
            f"{path}: cannot be written ({reason}); give {flag} another path."
        ) from None


def check_input(path: Path | str, advice: str) -> None:
    """Refuse to read a pipe, which waits for its writer, and a device, which may have no end.

    Args:
        path: the file to read. A missing file and a folder are left to the call that reads it.
        advice: the path to give instead, for the message.

    Raises:
        UserError: the path is neither a regular file nor a folder.
        OSError: the path cannot be looked up.
    """
    path = Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        raise UserError(f"{path}: is not a regular file; give {advice}.")


def check_output(path: Path | str, flag: str) -> Path:
    """Return an output path as a Path, after checking that a regular file can be written there.

    Scripts call it before long work, so that a bad path is reported first. It creates nothing.

    Args:
        path: the file to write; missing folders are allowed.
        flag: the flag that sets the path, for example "--out".

    Raises:
        UserError: the path exists and is not a regular file, or its folder cannot hold a new file.
    """
    path = Path(path)
    with writing(path, flag):
        if path.is_dir():
            raise UserError(f"{path}: is a directory; give {flag} the path of a file.")
        # /dev/stdout is a link. It looks like a regular file where the output goes to a file.
        if path.exists() and not path.is_file() or _is_for_devices(path.absolute().parent):
            raise UserError(f"{path}: is not a regular file; give {flag} another path.")
        folder = next(parent for parent in path.absolute().parents if parent.exists())

    if not folder.is_dir():
        fault = f"{folder} is not a directory"
    elif not os.access(folder, os.W_OK | os.X_OK):
        fault = f"the folder {folder} is not writable"
    else:
        return path
    raise UserError(f"{path}: cannot be written ({fault}); give {flag} another path.")


def _is_for_devices(folder: Path) -> bool:
    """Return whether a folder holds devices, or files that the system makes up."""
    folder = folder.resolve()
    return folder == Path("/dev") or any(map(folder.is_relative_to, ("/proc", "/sys")))
