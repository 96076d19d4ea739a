"""The look of a study in the MLflow UI: its saved views, and the links that open them.

MLflow keeps a saved view as a tag of the experiment, in an undocumented format (tried with 3.17).
Without a view, a browser opens an experiment on a page about traces, so each link names a view.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from studies.harness.store.winner import CONFIRMED

# Ids of the two views, and their names in the UI.
TRIALS = "trials"
CHARTS = "charts"
NAMES = {TRIALS: "Trials by dev loss", CHARTS: "Charts"}

PREFIX = "mlflow.sharedViewState."
# Without this kind an experiment opens on its traces.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# Excludes parent runs, seed repeats and requeued trials.
ONLY_TRIALS = "tags.trial IS NOT NULL and tags.repeat_of IS NULL and tags.state != 'INTERRUPTED'"
METRICS = ("dev_loss", *CONFIRMED, "n_params", "seconds")
MOST_RUNS = 100  # in one chart


def experiment_tags(params: Sequence[str], now: int) -> dict[str, str]:
    """Return the tags that give a study's experiment its views.

    Args:
        params: names of the searched parameters.
        now: milliseconds since the epoch.
    """
    states = {TRIALS: _state(params), CHARTS: {**_state(params), **_charts(params)}}
    tags = dict(KIND)
    for view, state in states.items():
        saved = {
            "name": NAMES[view],
            "createdAt": now,
            "updatedAt": now,
            "state": json.dumps(state),
        }
        tags[PREFIX + view] = json.dumps(saved)
    return tags


def view_link(base: str, experiment_id: str, view: str = TRIALS) -> str:
    """Return the link to a view.

    Args:
        base: address of the MLflow server, for example http://127.0.0.1:5000.
        experiment_id: id of the study's experiment.
        view: TRIALS or CHARTS.
    """
    link = f"{_runs_link(base, experiment_id)}&viewStateShareKey={view}"
    return f"{link}&compareRunsMode=CHART" if view == CHARTS else link


def experiment_links(base: str, experiment: Any) -> dict[str, str]:
    """Return the links to an experiment by their labels: a study's views, or the runs of another.

    Args:
        base: address of the MLflow server.
        experiment: the MLflow experiment.
    """
    experiment_id = experiment.experiment_id
    if not is_study(experiment):
        return {"Runs": _runs_link(base, experiment_id)}
    return {NAMES[view]: view_link(base, experiment_id, view) for view in (TRIALS, CHARTS)}


def is_study(experiment: Any) -> bool:
    """Return whether an experiment has a study's saved views."""
    return PREFIX + TRIALS in experiment.tags


def _runs_link(base: str, experiment_id: str) -> str:
    return f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"


def _state(params: Sequence[str]) -> dict[str, Any]:
    """Return the ranked table with its columns; charts show all runs, instead of ten."""
    columns = [
        *(f"metrics.`{name}`" for name in METRICS),
        *(f"params.`{name}`" for name in params),
        *(f"tags.`{name}`" for name in ("winner", "state", "reason")),
    ]
    return {
        "searchFilter": ONLY_TRIALS,
        "orderByKey": "metrics.`dev_loss`",
        "orderByAsc": True,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "runsHiddenMode": "SHOWALL",
        "runsHidden": [],
        "runsVisibilityMap": {},
        "runsPinned": [],
        "runsExpanded": {},
        "groupBy": None,
        "hideEmptyCharts": True,
        "autoRefreshEnabled": True,
    }


def _charts(params: Sequence[str]) -> dict[str, Any]:
    """Return the charts in two sections; parallel coordinates take a whole row."""
    shared = {"runsCountToCompare": MOST_RUNS, "deleted": False, "isGenerated": False}
    # MLflow adds a chart for each metric to the section "Model metrics", which stays folded.
    sections = [
        {
            "uuid": "wide",
            "name": "Search",
            "display": True,
            "isReordered": True,
            "columns": 1,
            "cardHeight": 420,
        },
        {
            "uuid": "pairs",
            "name": "Trials",
            "display": True,
            "isReordered": True,
            "columns": 2,
            "cardHeight": 380,
        },
        {"uuid": "rest", "name": "Model metrics", "display": False, "isReordered": False},
    ]
    charts = []
    for i, card in enumerate(_cards(params)):
        section = "wide" if card["type"] == "PARALLEL" else "pairs"
        charts.append({"uuid": f"card-{i}", "metricSectionId": section, **shared, **card})
    return {
        "compareRunCharts": charts,
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def _cards(params: Sequence[str]) -> list[dict[str, Any]]:
    """Return parallel coordinates, dev loss by step, dev loss by size, and lr by batch_size."""
    # The axes of MLflow's charts are linear.
    linear = ["log10_lr" if name == "lr" else name for name in params]
    dev_loss = {"key": "dev_loss", "type": "METRIC"}
    cards: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "selectedParams": linear,
            "selectedMetrics": ["dev_loss"],
            "showAllRuns": True,
        },
        {
            "type": "LINE",
            "metricKey": "current_dev_loss",
            "selectedMetricKeys": ["current_dev_loss"],
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "useGlobalLineSmoothing": False,
        },
        {
            "type": "SCATTER",
            "xaxis": {"key": "n_params", "type": "METRIC"},
            "yaxis": dev_loss,
        },
    ]
    if {"lr", "batch_size"} <= set(params):
        axes = {
            "xaxis": {"key": "log10_lr", "type": "PARAM"},
            "yaxis": {"key": "batch_size", "type": "PARAM"},
            "zaxis": dev_loss,
        }
        cards.append({"type": "CONTOUR", "displayName": "lr and batch_size", **axes})
    return cards
