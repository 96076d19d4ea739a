"""Databases and servers that fail while a script runs: one sentence instead of a traceback."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from makemore.cli import FAILED, stop
from makemore.errors import Outage
from studies.harness.store.text import reason, without_password

CONTINUE = "Nothing stored is lost; run the same command again to continue."
# Their errors are outages, or are those of MLflow that `_is_outage` accepts.
HTTP_LIBRARIES = ("requests", "urllib3")
# Codes of MLflow's errors that are not about the content of a call.
MLFLOW_CODES = ("INTERNAL_ERROR", "TEMPORARILY_UNAVAILABLE")


@contextmanager
def plain_outages(args: Any) -> Iterator[None]:
    """End the program with exit code 1 and a sentence that names the store that failed.

    Args:
        args: flags of the script; storage and tracking_uri are read.
    """
    try:
        yield
    except Exception as error:
        sentence = describe_outage(error, args)
        if sentence is None:
            raise
        stop(sentence, FAILED)


def describe_outage(error: BaseException, args: Any) -> str | None:
    """Return the sentence for a store that failed, or None for every other error."""
    first = error
    # A failed clean-up may hide the outage.
    while not (_is_storage(first) or _is_mlflow(first)):
        if first.__context__ is None or first.__suppress_context__:
            return None
        first = first.__context__
    if _is_mlflow(first):
        where = getattr(args, "tracking_uri", None)
        store = f"MLflow at {without_password(where)}" if where else "MLflow"
    else:
        where = getattr(args, "storage", None)
        store = f"storage {without_password(where)}" if where else "the storage"
        if type(first).__name__ == "StorageInternalError" and first.__cause__ is not None:
            first = first.__cause__  # Optuna's own message does not name the reason
    return f"{store} failed: {reason(first).rstrip('.')}. {CONTINUE}"


def _is_storage(error: BaseException) -> bool:
    """Return whether a database failed under Optuna, and not because of what was written."""
    name = type(error).__name__
    if type(error).__module__ == "optuna.exceptions":
        return name == "StorageInternalError"
    return _library(error) == "sqlalchemy" and name in ("OperationalError", "InterfaceError")


def _is_mlflow(error: BaseException) -> bool:
    """Return whether MLflow or its server failed, and not because of what was written."""
    if isinstance(error, Outage):
        return True
    if _library(error) == "mlflow":
        return getattr(error, "error_code", "") in MLFLOW_CODES
    return _library(error) in HTTP_LIBRARIES


def _library(error: BaseException) -> str:
    return type(error).__module__.split(".")[0]
