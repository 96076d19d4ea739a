"""Calls of a server: which ones are repeated, and answers that no server gives."""

from __future__ import annotations

import itertools

import pytest

from studies.harness.tracking.connection.answers import FalseAnswer, repeat
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import find_runs, get_experiment
from tests.servers import EMPTY, FORWARD, MlflowServer, proxy


def test_failed_call_is_repeated_until_the_last_pause() -> None:
    calls = itertools.count()

    def call() -> int:
        if (number := next(calls)) < 2:
            raise OSError(number)
        return number

    assert repeat(call, [0.0, 0.0], within=5) == 2
    calls = itertools.count()
    with pytest.raises(OSError):
        repeat(call, [0.0], within=5)


def test_final_error_is_not_repeated() -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise KeyError

    with pytest.raises(KeyError):
        repeat(call, [0.0, 0.0], within=5, final=KeyError)
    assert len(calls) == 1


@pytest.mark.server
def test_empty_answers_are_asked_for_again(server: MlflowServer) -> None:
    client = connect(server.uri)
    experiment_id = get_experiment(client, "mlp")
    run_id = client.create_run(experiment_id).info.run_id

    def first_two_empty(method: str, path: str, times: int) -> str:
        return EMPTY if "runs/" in path and times <= 2 else FORWARD

    with proxy(server.port, first_two_empty) as uri:
        client = connect(uri)
        assert [run.info.run_id for run in find_runs(client, experiment_id)] == [run_id]
        assert client.get_run(run_id).info.run_id == run_id
        with pytest.raises(FalseAnswer):
            client.create_run(experiment_id)
