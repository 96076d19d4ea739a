"""Several studies side by side: what each reached, after how much training, and in which settings they differ."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import optuna
import pandas as pd

from studies.harness.report.best_so_far import best_at, best_so_far
from studies.harness.report.results import Results, read_results
from studies.harness.store.study import format_range

SHARES = (0.1, 0.25, 0.5, 1.0)  # of the training steps that all of the studies had


def compare_studies(studies: Sequence[optuna.Study]) -> pd.DataFrame:
    """One row a measure or setting, one column a study.

    Best so far is compared at equal numbers of training steps, summed over trials: shares of what the study that
    trained least had. Settings stand below, and only those that differ.

    Returns:
        Strings, indexed by what they are; columns named by the studies.
    """
    results = [read_results(study) for study in studies]
    curves = [best_so_far(result.trials, result.points) for result in results]
    least = min((float(curve.steps.iloc[-1]) for curve in curves if len(curve)), default=0.0)
    rows: dict[str, list[str]] = {
        "trials": [str(len(result.trials)) for result in results],
        "complete": [str(len(result.complete)) for result in results],
        "best dev_loss": [_loss(result.measured.dev_loss.min()) for result in results],
        "median dev_loss of complete": [
            _loss(result.complete.dev_loss.median()) for result in results
        ],
        "training steps": [
            f"{curve.steps.iloc[-1]:,.0f}" if len(curve) else "0" for curve in curves
        ],
        "seconds of search": [
            f"{curve.seconds.iloc[-1]:.1f}" if len(curve) else "0" for curve in curves
        ],
    }
    for share in SHARES if least else ():
        steps = round(share * least)
        rows[f"best after {steps:,} steps"] = [
            _loss(best_at(curve, "steps", steps)) for curve in curves
        ]
    for label, values in _settings(studies, results).items():
        if len(set(values)) > 1:
            rows[label] = values
    return pd.DataFrame.from_dict(
        rows, orient="index", columns=[study.study_name for study in studies]
    )


def _settings(studies: Sequence[optuna.Study], results: Sequence[Results]) -> dict[str, list[str]]:
    """Data, seed, base config, ranges, and the best config of each study."""
    attrs = [study.user_attrs for study in studies]
    found = {
        name: [str(attr.get(key, "-")) for attr in attrs]
        for name, key in (("data", "data"), ("seed", "seed"))
    }
    for key in dict.fromkeys(key for attr in attrs for key in attr.get("base", {})):
        found[f"base {key}"] = [str(attr.get("base", {}).get(key, "-")) for attr in attrs]
    for key in dict.fromkeys(key for attr in attrs for key in attr.get("space", {})):
        found[f"range of {key}"] = [
            format_range(attr.get("space", {}).get(key, "fixed")) for attr in attrs
        ]
    for key in dict.fromkeys(name for result in results for name in result.params):
        found[f"best {key}"] = [_best(result, key) for result in results]
    return found


def _best(result: Results, key: str) -> str:
    if key not in result.params or not result.measured.dev_loss.notna().any():
        return "-"
    value = result.measured[key].iloc[int(result.measured.dev_loss.argmin())]
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _loss(value: Any) -> str:
    return "-" if value is None or np.isnan(value) else f"{value:.4f}"


def to_markdown(frame: pd.DataFrame, corner: str) -> str:
    """A table of strings as Markdown, its index first under the heading `corner`."""
    lines = [[corner, *map(str, frame.columns)], ["---"] * (len(frame.columns) + 1)]
    lines += [
        [str(index), *map(str, row)]
        for index, row in zip(frame.index, frame.to_numpy(), strict=True)
    ]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
