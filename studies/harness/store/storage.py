"""Opens the Optuna storage of a study: a journal file, or a database given by its URL."""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator
from pathlib import Path
from typing import Any

from optuna.storages import BaseStorage, JournalStorage
from optuna.trial import FrozenTrial, TrialState

from makemore.errors import UserError
from studies.harness.store.journal import Journal, check_journal
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import check_study_name, reason, with_psycopg, without_password


class NoStudy(UserError):
    """The study or its storage does not exist."""


class StudyJournal(JournalStorage):
    """Optuna's journal storage, which keeps the lists of trials that it returns.

    Optuna builds such a list from all trials at each call. A search of 10,000 trials asks for it
    50,000 times.
    """

    def __init__(self, journal: Journal) -> None:
        self._lists: dict[int, list[FrozenTrial]] = {}  # by id of the study
        self._changed: set[int] = set()  # ids of trials that the lists have in an old state
        super().__init__(journal)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._lists, self._changed = {}, set()

    def _sync_with_backend(self) -> None:
        logs = self._backend.read_logs(self._replay_result.log_number_read)
        self._replay_result.apply_logs(self._note(logs))

    def _note(self, logs: Iterable[dict[str, Any]]) -> Iterator[dict[str, Any]]:
        for log in logs:
            if "trial_id" in log:
                self._changed.add(log["trial_id"])
            yield log

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials of a study by number, as Optuna's own method does."""
        if deepcopy:
            return super().get_all_trials(study_id, deepcopy, states)
        with self._thread_lock:
            self._sync_with_backend()
            trials = self._known_trials(study_id)
            return [t for t in trials if t.state in states] if states else trials.copy()

    def _known_trials(self, study_id: int) -> list[FrozenTrial]:
        replayed = self._replay_result
        replayed.get_study(study_id)  # raises a KeyError without such a study
        for trial_id in self._changed & replayed._trials.keys():
            trial = replayed._trials[trial_id]
            trials = self._lists.get(replayed._trial_id_to_study_id[trial_id], [])
            if trial.number < len(trials):
                trials[trial.number] = trial
        self._changed.clear()
        trials = self._lists.setdefault(study_id, [])
        new = replayed._study_id_to_trial_ids[study_id][len(trials) :]
        trials += [replayed._trials[trial_id] for trial_id in new]
        return trials


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
        return StudyJournal(Journal(path))
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
