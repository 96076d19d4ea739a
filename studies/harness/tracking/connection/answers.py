"""Calls an MLflow server: repeats calls without an answer, and finds answers of a proxy."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from functools import partial
from itertools import chain
from typing import Any, TypeVar

from makemore.errors import Outage

ATTEMPTS = 3  # calls of a server until one is answered
QUICK = 5.0  # seconds; a call that failed after a longer time is not repeated

Answer = TypeVar("Answer")


class FalseAnswer(Outage):
    """An answer that an MLflow server does not give: a proxy answered in its place."""


class _Empty(Exception):
    """A list without elements."""


def repeat(
    call: Callable[[], Answer],
    pauses: Iterable[float],
    within: float,
    final: type[Exception] | tuple[()] = (),
) -> Answer:
    """Return what a call returns; if it fails, call it again.

    Args:
        call: the call.
        pauses: seconds between two attempts; one attempt more than pauses.
        within: no attempt begins after so many seconds.
        final: errors that another attempt would not change.
    """
    begun = time.monotonic()
    for pause in chain(pauses, [None]):
        try:
            return call()
        except final:
            raise
        except Exception:
            if pause is None or time.monotonic() + pause - begun > within:
                raise
        time.sleep(pause)
    raise AssertionError("unreachable")


class ServerClient:
    """An MlflowClient of a server, which repeats a call whose answer was lost or is false.

    It does not repeat calls that create something: the server may have done the first one. An empty
    list is asked for again, because a proxy's `{}` reads as one.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._client, name)
        if not callable(found):
            return found
        return partial(_create if name.startswith("create_") else _ask, found)


def _create(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    answer = call(*args, **options)
    _check_names(answer)
    return answer


def _ask(call: Callable[..., Any], *args: Any, **options: Any) -> Any:
    from mlflow.exceptions import RestException

    answer = None

    def ask() -> Any:
        nonlocal answer
        answer = call(*args, **options)
        _check_names(answer)
        if isinstance(answer, list) and not answer:
            raise _Empty
        return answer

    try:
        # A RestException is the server's own answer.
        return repeat(ask, [0.0] * (ATTEMPTS - 1), QUICK, RestException)
    except _Empty:
        return answer


def _check_names(answer: Any) -> None:
    """Raise FalseAnswer if a run or an experiment has no id, as after an empty answer."""
    from mlflow.entities import Experiment, Run

    found = answer
    if isinstance(answer, Run):
        found = answer.info.run_id
    elif isinstance(answer, Experiment):
        found = answer.experiment_id
    if found == "":
        raise FalseAnswer("the answer is empty; it is not an MLflow server's")
