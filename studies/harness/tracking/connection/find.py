"""Creates experiments, and finds experiments and runs."""

from __future__ import annotations

from typing import Any

from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.paths import MLRUNS


def get_experiment(client: Any, name: str) -> str:
    """Return the id of an experiment, which is created if it is missing.

    Raises:
        UserError: an experiment of that name was deleted; MLflow does not allow the name again.
    """
    with exclusive("mlflow"):
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            local = client.tracking_uri.startswith("sqlite:///")
            location = (MLRUNS / "artifacts" / name).absolute().as_uri() if local else None
            try:
                return str(client.create_experiment(name, artifact_location=location))
            except Exception:
                # The answer was lost, or another launch created it at the same moment.
                experiment = client.get_experiment_by_name(name)
                if experiment is None:
                    raise
    if experiment.lifecycle_stage != "active":
        raise UserError(
            f"MLflow experiment {name!r} was deleted, and MLflow does not allow its name again; "
            "take another --study, or restore it with: "
            f"mlflow experiments restore -x {experiment.experiment_id}"
        )
    return str(experiment.experiment_id)


def find_experiment(client: Any, name: str) -> Any:
    """Return an experiment that exists.

    Raises:
        UserError: it does not exist; names the experiments that do.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None and experiment.lifecycle_stage == "active":
        return experiment
    # MLflow creates Default by itself.
    known = sorted({other.name for other in client.search_experiments()} - {"Default"})
    raise UserError(
        f"no study {name!r} in this MLflow store; it holds {', '.join(known) or 'none'}."
    )


def experiments_with_runs(client: Any) -> list[Any]:
    """Return the experiments that have runs; the one with the newest run comes first."""
    newest = []
    for experiment in client.search_experiments():
        for run in find_runs(client, experiment.experiment_id, most=1):
            newest.append((run.info.start_time, experiment))
    newest.sort(key=lambda pair: pair[0], reverse=True)
    return [experiment for _, experiment in newest]


def find_runs(
    client: Any, experiment_id: str, query: str = "", most: int | None = None, **tags: object
) -> list[Any]:
    """Return the runs of an experiment, newest first.

    Args:
        client: an MlflowClient.
        experiment_id: id of the experiment.
        query: a filter in MLflow's syntax.
        most: how many runs to return; None for all.
        tags: values that the runs' tags must have.
    """
    conditions = [query] if query else []
    conditions += [f"tags.`{key}` = '{value}'" for key, value in tags.items()]
    query = " and ".join(conditions)
    runs: list[Any] = []
    page = client.search_runs([experiment_id], query, max_results=min(most or 1000, 1000))
    while True:
        runs += page
        if not page.token or (most is not None and len(runs) >= most):
            return runs[:most]
        page = client.search_runs([experiment_id], query, max_results=1000, page_token=page.token)
