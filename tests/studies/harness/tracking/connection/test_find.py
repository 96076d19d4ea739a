"""Experiments and searches on a real database."""

from __future__ import annotations

from pathlib import Path

import pytest

from makemore.errors import UserError
from studies.harness.tracking.connection.connect import (
    connect,
)
from studies.harness.tracking.connection.find import (
    experiments_with_runs,
    find_experiment,
    find_runs,
    get_experiment,
)


def test_experiment_is_created_once(workdir: Path) -> None:
    client = connect(None)

    experiment_id = get_experiment(client, "mlp")

    assert get_experiment(client, "mlp") == experiment_id
    location = client.get_experiment(experiment_id).artifact_location
    assert location == (workdir / "mlruns" / "artifacts" / "mlp").as_uri()


def test_deleted_experiment_is_refused_with_the_way_back(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    client.delete_experiment(experiment_id)

    with pytest.raises(UserError, match=f"mlflow experiments restore -x {experiment_id}"):
        get_experiment(client, "mlp")


def test_unknown_experiment_is_refused_with_the_known_ones(workdir: Path) -> None:
    client = connect(None)
    for name in ("wide", "deep"):
        get_experiment(client, name)

    assert find_experiment(client, "wide").name == "wide"
    with pytest.raises(UserError, match="no study 'mlp' in this MLflow store; it holds deep, wide"):
        find_experiment(client, "mlp")


def test_experiment_with_the_newest_run_comes_first(workdir: Path) -> None:
    client = connect(None)
    assert experiments_with_runs(client) == []
    for name, started in (("a", 1000), ("b", 3000), ("c", 2000)):
        client.create_run(get_experiment(client, name), start_time=started)
    client.create_run(get_experiment(client, "a"), start_time=4000)
    get_experiment(client, "without runs")

    assert [experiment.name for experiment in experiments_with_runs(client)] == ["a", "b", "c"]


def test_runs_are_found_by_query_tags_and_number(workdir: Path) -> None:
    client = connect(None)
    experiment_id = get_experiment(client, "mlp")
    for trial in range(3):
        tags = {"trial": str(trial), "launch": "one" if trial else "two"}
        client.create_run(experiment_id, start_time=1000 + trial, tags=tags)

    def numbers(*args: str, **options: object) -> list[str]:
        runs = find_runs(client, experiment_id, *args, **options)  # type: ignore[arg-type]
        return [run.data.tags["trial"] for run in runs]

    assert numbers() == ["2", "1", "0"]
    assert numbers(launch="one") == ["2", "1"]
    assert numbers("tags.trial != '2'", launch="one") == ["1"]
    assert numbers(most=1) == ["2"]
