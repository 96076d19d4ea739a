"""Opens the Optuna storage of a study: a journal file, or a database given by its URL."""

from __future__ import annotations

import re
from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage, RDBStorage

from makemore.errors import UserError
from studies.harness.store.journal import Journal, check_journal
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import check_study_name, reason, without_password


class NoStudy(UserError):
    """The study or its storage does not exist."""


def open_storage(spec: str | None, study: str, *, create: bool = True) -> BaseStorage:
    """Open the Optuna storage of a study.

    Args:
        spec: an Optuna URL, the path of a journal file, or None for mlruns/optuna/<study>.journal.
        create: create a missing store; otherwise a missing store is an error.

    Raises:
        NoStudy: the store is missing.
        UserError: the store cannot be reached, created or read; passwords are
            masked.
    """
    if spec is not None and "://" in spec:
        return _open_url(spec, create=create)
    path = Path(spec) if spec else MLRUNS / "optuna" / f"{check_study_name(study)}.journal"
    if not create and not path.exists():
        raise NoStudy(_missing_journal(path, None if spec else study))
    if path.is_dir():
        raise UserError(
            f"{path}: is a directory; give --storage the path of a journal file or an Optuna URL."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        check_journal(path)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise UserError(
            f"{path}: the journal cannot be opened ({error.strerror}); correct that, or give "
            "--storage another path."
        ) from None
    except (ValueError, KeyError, TypeError, AssertionError):
        raise UserError(f"{path}: is not an Optuna journal; give --storage another path.") from None


def _missing_journal(path: Path, study: str | None) -> str:
    """Return the sentence for a journal that does not exist; `study` is None with --storage."""
    if study is None:
        return (
            f"{path.absolute()}: no such journal; give --storage the path of one that exists, "
            "or an Optuna URL."
        )
    folder = path.parent.absolute()
    known = sorted(journal.stem for journal in folder.glob("*.journal"))
    if known:
        return (
            f"no study {study!r} in {folder}, which holds {', '.join(known)}; give one of these "
            "names, run the command from the folder that holds the right mlruns/, or give "
            "--storage."
        )
    return (
        f"no study {study!r} in {folder}; run the command from the folder that holds mlruns/, "
        "or give --storage."
    )


def _open_url(url: str, *, create: bool) -> BaseStorage:
    """Open a database."""
    shown = without_password(url)
    # SQLAlchemy's default driver for PostgreSQL is psycopg2, which this project does not install.
    url = re.sub(r"^postgres(ql)?://", "postgresql+psycopg://", url)
    if url.startswith("sqlite:///"):
        file = Path(url.removeprefix("sqlite:///").split("?")[0])
        if not create and not file.is_file():
            raise NoStudy(
                f"{file.absolute()}: no such SQLite file; give --storage one that exists."
            )
        file.parent.mkdir(parents=True, exist_ok=True)

    try:
        # Two processes that create the tables at the same time would crash one of them.
        with exclusive("storage"):
            return RDBStorage(url)
    # SQLAlchemy and each driver raise their own exceptions, some with the password in the message.
    except Exception as error:
        raise UserError(f"storage {shown} cannot be opened: {reason(error)}") from None
