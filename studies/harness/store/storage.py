"""Optuna's storage: where a study lives, who works on it, and which of its trials nobody trains any more."""

from __future__ import annotations

import re
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from makemore.errors import UserError
from studies.harness.store.journal import Journal, check_journal
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import check_study_name, reason, without_password

try:
    import fcntl
except ImportError:
    fcntl = None  # type: ignore[assignment]


def open_storage(spec: str | None, study: str, *, create: bool = True) -> BaseStorage:
    """Open the Optuna storage of a study.

    Args:
        spec: an Optuna URL, the path of a journal file, or None for mlruns/optuna/<study>.journal.
        create: make what is missing; otherwise a missing store is an error.

    Raises:
        UserError: the store cannot be reached, made or read; one sentence, without the password.
    """
    if spec is not None and "://" in spec:
        return _open_url(spec, create=create)
    path = Path(spec) if spec else MLRUNS / "optuna" / f"{check_study_name(study)}.journal"
    if not create and not path.is_file():
        raise UserError(
            f"{path}: no such journal; name a study that exists, or give its --storage."
        )
    if path.is_dir():
        raise UserError(
            f"{path}: is a directory; give --storage the path of a journal file or an Optuna URL."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_journal(path)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise UserError(f"{path}: the journal cannot be opened ({error.strerror}).") from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path}: is not an Optuna journal; give --storage another path.") from None


def _open_url(url: str, *, create: bool) -> BaseStorage:
    shown = without_password(url)
    url = re.sub(
        r"^postgres(ql)?://", "postgresql+psycopg://", url
    )  # SQLAlchemy would look for psycopg2
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///").split("?")[0])
        if not create and not file.is_file():
            raise UserError(
                f"{file}: no such SQLite file; name a study that exists, or give its --storage."
            )
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(
            "storage"
        ):  # two processes that create the tables together would crash one of them
            return RDBStorage(url)
    except Exception as error:  # SQLAlchemy and each driver have exceptions of their own, and they carry the password
        raise UserError(f"storage {shown} cannot be opened: {reason(error)}") from None
