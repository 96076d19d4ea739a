"""A trial's record with two evaluations, for the tests of this folder."""

from __future__ import annotations

from typing import Any

from makemore.config import Config
from makemore.engines import EvalPoint
from studies.harness.store.trials import TrialRecord

START = 1.79e9  # seconds since the epoch


def make_record(losses: tuple[float, ...] = (2.4, 2.2), **changes: Any) -> TrialRecord:
    """Return the record of trial 7, evaluated every 100 steps; the minibatch loss is 0.1 lower."""
    points = [EvalPoint(100 * (i + 1), x - 0.1, x, 0.1) for i, x in enumerate(losses)]
    fields: dict[str, Any] = {
        "number": 7,
        "config": Config(lr=0.1),
        "params": {"lr": 0.1},
        "started": START,
        "tags": {"launch": "one"},
        "points": points,
        "times": [START + i for i in range(len(points))],
        "state": "COMPLETE",
        "reason": "finished",
        "metrics": {"n_params": 1000},
        "ended": START + 10,
    }
    return TrialRecord(**{**fields, **changes})
