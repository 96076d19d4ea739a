"""What a study looks like in the MLflow UI: its saved views, and the note on its parent run.

MLflow keeps a saved view as a tag of the experiment, in an undocumented format of its own (tried with 3.17). A browser
that knows no view opens an experiment on a page about traces, so every link here names one.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

TRIALS, CHARTS = "trials", "charts"  # ids of the two views
NAMES = {TRIALS: "Trials by dev loss", CHARTS: "Charts"}
PREFIX = "mlflow.sharedViewState."
# Without this kind an experiment opens on its traces.
KIND = {"mlflow.experimentKind": "custom_model_development"}
# No parent runs, no seed repeats, and no trials that were given back to be trained again.
ONLY_TRIALS = "tags.trial IS NOT NULL and tags.repeat_of IS NULL and tags.state != 'INTERRUPTED'"
METRICS = ("dev_loss", "train_loss", "n_params", "seconds")
MOST_RUNS = 100  # in one picture


def experiment_tags(params: Sequence[str], now: int) -> dict[str, str]:
    """The tags that give a study's experiment its views.

    Args:
        params: names of the searched parameters.
        now: milliseconds since the epoch.
    """
    states = {TRIALS: _state(params), CHARTS: {**_state(params), **_charts(params)}}
    return {
        **KIND,
        **{
            PREFIX + view: json.dumps(
                {
                    "name": NAMES[view],
                    "createdAt": now,
                    "updatedAt": now,
                    "state": json.dumps(state),
                }
            )
            for view, state in states.items()
        },
    }


def view_link(base: str, experiment_id: str, view: str = TRIALS) -> str:
    """The address of a view.

    Args:
        base: the MLflow server, for example http://127.0.0.1:5000.
    """
    link = f"{base.rstrip('/')}/#/experiments/{experiment_id}/runs?workflowType=machine_learning"
    return f"{link}&viewStateShareKey={view}" + ("&compareRunsMode=CHART" if view == CHARTS else "")


def _state(params: Sequence[str]) -> dict[str, Any]:
    """The table: ranked, with its columns; and all runs shown in charts, of which ten would be the default."""
    columns = [
        *(f"metrics.`{name}`" for name in METRICS),
        *(f"params.`{name}`" for name in params),
        *(f"tags.`{name}`" for name in ("state", "reason")),
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
    """The charts, in two sections; parallel coordinates take a whole row."""
    shared = {"runsCountToCompare": MOST_RUNS, "deleted": False, "isGenerated": False}
    # What MLflow adds by itself, a chart for each metric, goes into a section of this name, which stays folded.
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
    section = {"PARALLEL": "wide"}
    return {
        "compareRunCharts": [
            {
                "uuid": f"card-{i}",
                "metricSectionId": section.get(card["type"], "pairs"),
                **shared,
                **card,
            }
            for i, card in enumerate(_cards(params))
        ],
        "compareRunSections": sections,
        "isAccordionReordered": True,
    }


def _cards(params: Sequence[str]) -> list[dict[str, Any]]:
    """Parallel coordinates, dev-loss curves, size against loss, lr by batch_size."""
    # The axes of MLflow's charts are linear.
    linear = ["log10_lr" if name == "lr" else name for name in params]
    metric, param = (
        lambda key, kind=kind: {"key": key, "type": kind} for kind in ("METRIC", "PARAM")
    )
    cards: list[dict[str, Any]] = [
        {
            "type": "PARALLEL",
            "selectedParams": linear,
            "selectedMetrics": ["dev_loss"],
            "showAllRuns": True,
        },
        {
            "type": "LINE",
            "metricKey": "dev_loss",
            "selectedMetricKeys": ["dev_loss"],
            "xAxisKey": "step",
            "lineSmoothness": 0,
            "useGlobalLineSmoothing": False,
        },
        {
            "type": "SCATTER",
            "xaxis": metric("n_params"),
            "yaxis": metric("dev_loss"),
        },
    ]
    if {"lr", "batch_size"} <= set(params):
        axes = {
            "xaxis": param("log10_lr"),
            "yaxis": param("batch_size"),
            "zaxis": metric("dev_loss"),
        }
        cards.append({"type": "CONTOUR", "displayName": "lr and batch_size", **axes})
    return cards
