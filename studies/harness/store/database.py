"""Opens a database as an Optuna storage that rides out restarts of the server, and locks it."""

from __future__ import annotations

import functools
import hashlib
import logging
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import Any, TypeVar

from optuna.exceptions import UpdateFinishedTrialError
from optuna.storages import BaseStorage, RDBStorage
from optuna.trial import TrialState
from sqlalchemy import Engine, create_engine, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, PendingRollbackError

from studies.harness.store.text import reason

logger = logging.getLogger(__name__)
# Optuna would print the whole SQL statement that an outage cut off.
logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.ERROR)
RIDE_OUT = 60.0  # seconds in which a server that is away must come back
HURRY = 2.0  # seconds; the same after Ctrl-C
RETRY = 0.5  # seconds between two attempts
CONNECT_TIMEOUT = 5  # seconds
# A connection to a machine that is gone fails after about 20 s instead of 15 minutes.
KEEPALIVE = {
    "connect_timeout": CONNECT_TIMEOUT,
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 2,
    "tcp_user_timeout": 20_000,
}
# With the settings, the server ends the session of a machine that is gone within 20 s, not 2 hours.
LOCK = text(
    "SELECT set_config('tcp_keepalives_idle', '10', true), "
    "set_config('tcp_keepalives_interval', '5', true), "
    "set_config('tcp_keepalives_count', '2', true), pg_advisory_xact_lock(:key)"
)
# The last one follows where Optuna catches the first one and continues in the same transaction.
OUTAGES = (OperationalError, InterfaceError, PendingRollbackError)
T = TypeVar("T")


def open_database(url: str) -> RDBStorage:
    """Open a database, and create its tables if it has none.

    Args:
        url: of SQLAlchemy, with its driver.

    Raises:
        Exception: of SQLAlchemy or the driver, some with the password in the message.
    """
    # Test a connection before its use: the server may have restarted since.
    options: dict[str, Any] = {"pool_pre_ping": True}
    if url.startswith("sqlite:"):
        return RDBStorage(url, engine_kwargs=options)
    if url.startswith("postgresql+psycopg"):
        missing = {name: value for name, value in KEEPALIVE.items() if f"{name}=" not in url}
        options["connect_args"] = missing
    # As a lock of mlruns/, which the caller holds, but between machines.
    engine = create_engine(url, **options)
    try:
        with _advisory_lock(engine, "storage"):
            return PatientStorage(url, engine_kwargs=options)
    finally:
        engine.dispose()


@contextmanager
def _advisory_lock(engine: Engine, name: str) -> Iterator[None]:
    """Hold a lock of PostgreSQL that ends with its transaction; does nothing for other servers."""
    if engine.dialect.name != "postgresql":
        yield
        return
    key = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)
    with engine.connect() as connection:
        connection.execute(LOCK, {"key": key})
        yield


class PatientStorage(RDBStorage):
    """A storage on a database server. Its calls wait for a server that is away, up to RIDE_OUT.

    A call that was cut off is repeated. The server may have obeyed the first time, so a call that
    creates a trial may leave a second one. That one has no launch, so it is requeued.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._away_since: float | None = None  # time.monotonic() of the first failure in a row
        self._guard = threading.Lock()
        self._patience = RIDE_OUT
        super().__init__(*args, **kwargs)

    @contextmanager
    def locked(self, name: str) -> Iterator[None]:
        """Let only one process at a time run the block, among those that share this database.

        Only PostgreSQL has such locks.

        Args:
            name: name of the lock; blocks with different names do not wait for each other.
        """

        def acquire() -> AbstractContextManager[None]:
            lock = _advisory_lock(self.engine, name)
            lock.__enter__()
            return lock

        lock = self.patiently(acquire)
        try:
            yield
        finally:
            with suppress(DBAPIError):  # the lock ended with its connection
                lock.__exit__(None, None, None)

    def patiently(self, call: Callable[[], T]) -> T:
        """Return the result of a call, which is repeated while the server is away.

        Raises:
            Exception: the server has been away for RIDE_OUT, or the call failed for another reason.
        """
        begun = time.monotonic()
        while True:
            try:
                result = call()
            except Exception as error:
                outage = _outage_behind(error)
                if outage is None or not self._may_wait(outage, begun):
                    raise
            else:
                self._away_since = None
                return result
            time.sleep(RETRY)

    def hurry(self) -> None:
        """Wait no longer than HURRY from now on, because the user wants to end."""
        self._patience = HURRY

    def _may_wait(self, outage: BaseException, begun: float) -> bool:
        """Return whether the server may still come back; says once that it is away.

        Args:
            begun: time.monotonic() of the first attempt of this call. Another thread's calls may
                succeed while this one fails again and again.
        """
        with self._guard:
            now = time.monotonic()
            if self._away_since is None:
                self._away_since = now
                text = "The storage does not answer (%s). Trying again for %d s."
                logger.warning(text, reason(outage), self._patience)
            return now - min(begun, self._away_since) < self._patience

    def set_trial_state_values(self, trial_id: int, state: TrialState, values: Any = None) -> bool:
        """As Optuna's, and repeated after an outage."""
        attempts = 0

        def set_values() -> bool:
            nonlocal attempts
            attempts += 1
            try:
                return super(PatientStorage, self).set_trial_state_values(trial_id, state, values)
            except UpdateFinishedTrialError:
                # The attempt that the outage cut off may have succeeded.
                if attempts > 1 and self.get_trial(trial_id).state == state:
                    return True
                raise

        return self.patiently(set_values)


def _outage_behind(error: BaseException) -> BaseException | None:
    """Return the error of a server that does not answer, if it caused an error of Optuna."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, OUTAGES):
        cause = cause.__cause__
    return cause


def _patient(name: str) -> Callable[..., Any]:
    method = getattr(RDBStorage, name)

    @functools.wraps(method)
    def call(self: PatientStorage, *args: Any, **kwargs: Any) -> Any:
        return self.patiently(lambda: method(self, *args, **kwargs))

    return call


# What Optuna's cache calls, besides the public methods.
_PRIVATE = {"_create_new_trial", "_get_best_trial_id", "_get_trials", "_set_trial_param"}
for _name in (BaseStorage.__abstractmethods__ | _PRIVATE) - {"set_trial_state_values"}:
    setattr(PatientStorage, _name, _patient(_name))
