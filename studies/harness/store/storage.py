"""Opens the Optuna storage of a study: a journal file, or a database given by its URL."""

from __future__ import annotations

from pathlib import Path

from optuna.storages import BaseStorage, JournalStorage

from makemore.errors import UserError
from studies.harness.store.journal import Journal, check_journal
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import check_study_name, reason, with_psycopg, without_password


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
    try:
        if not create and not path.exists():
            raise NoStudy(_missing_journal(path, None if spec else study))
        if path.exists() and not path.is_file():
            kind = "a directory" if path.is_dir() else "not a regular file"
            raise UserError(
                f"{path}: is {kind}; give --storage the path of a journal file or an Optuna URL."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        check_journal(path)
        return JournalStorage(Journal(path))
    except OSError as error:
        raise UserError(
            f"{path}: the journal cannot be opened ({error.strerror}); correct that, or give "
            "--storage another path."
        ) from None
    except UserError:
        raise
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
    url = with_psycopg(url)
    if url.startswith("sqlite:"):
        try:
            _check_sqlite(url, create=create)
        except OSError as error:
            raise UserError(f"storage {shown} cannot be opened: {error.strerror}.") from None

    from studies.harness.store.database import open_database

    try:
        # Two processes that create the tables at the same time would crash one of them.
        with exclusive("storage"):
            return open_database(url)
    # SQLAlchemy and each driver raise their own exceptions, some with the password in the message.
    except Exception as error:
        raise UserError(f"storage {shown} cannot be opened: {reason(error)}") from None


def _check_sqlite(url: str, *, create: bool) -> None:
    """Refuse a URL that names no regular file, and create the folder of one that does."""
    file = Path(url.removeprefix("sqlite:///").split("?")[0])
    if not url.startswith("sqlite:///") or file.name in ("", ":memory:"):
        raise UserError(
            f"storage {without_password(url)} names no file, so nothing would be kept; give "
            "--storage sqlite:///PATH or the path of a journal file."
        )
    if file.exists() and not file.is_file():
        raise UserError(f"{file}: is not a regular file; give --storage another path.")
    if not create and not file.is_file():
        raise NoStudy(f"{file.absolute()}: no such SQLite file; give --storage one that exists.")
    file.parent.mkdir(parents=True, exist_ok=True)
