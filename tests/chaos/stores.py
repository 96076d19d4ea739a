"""Reads both stores of a study for the checker: the journal as JSON lines, MLflow with sqlite3.

This module and the checker share no code with the product, nor with Optuna and MLflow.
"""

from __future__ import annotations

import json
import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

STATES = ("RUNNING", "COMPLETE", "PRUNED", "FAIL", "WAITING")  # Optuna's numbers for them
FINISHED = ("COMPLETE", "PRUNED", "FAIL")
ENDED = re.compile(rb'"op_code":6,[^\n]*"state":[12],')  # a trial that was stored with its result


@dataclass
class Trial:
    """A trial as the journal has it."""

    number: int
    state: str
    attrs: dict[str, Any]
    params: dict[str, Any] = field(default_factory=dict)

    @property
    def is_follow_up(self) -> bool:
        return "repeat_of" in self.attrs or "finishes" in self.attrs

    @property
    def counts(self) -> bool:
        """Whether the trial counts towards the study's total."""
        replaced = "replaced" in self.attrs
        return self.state in FINISHED and not replaced and not self.is_follow_up

    @property
    def has_result(self) -> bool:
        return self.state in ("COMPLETE", "PRUNED") and self.dev_loss is not None

    @property
    def dev_loss(self) -> float | None:
        loss: float | None = self.attrs.get("summary", {}).get("dev_loss")
        return loss

    @property
    def losses(self) -> dict[int, float]:
        """The dev loss of each evaluated step."""
        history = self.attrs.get("summary", {}).get("history", [])
        return {int(row[0]): float(row[2]) for row in history}


@dataclass
class Study:
    """A study as the journal has it."""

    attrs: dict[str, Any] = field(default_factory=dict)
    trials: list[Trial] = field(default_factory=list)


def read_study(journal: Path) -> Study:
    """Replay a journal that holds one study.

    Raises:
        ValueError: a line is not a record. Half a record at the end is ignored, as Optuna does.
    """
    study = Study()
    lines = journal.read_bytes().split(b"\n") if journal.exists() else []
    for line in lines[:-1]:
        _apply(json.loads(line), study)
    return study


def _apply(log: dict[str, Any], study: Study) -> None:
    operation = log["op_code"]
    if operation == 2:
        study.attrs |= log["user_attr"]
    elif operation == 4:
        state = STATES[log.get("state", 0)]
        study.trials.append(Trial(len(study.trials), state, dict(log.get("user_attrs", {}))))
    elif "trial_id" in log:
        trial = study.trials[log["trial_id"]]
        if trial.state in FINISHED:
            return  # a finished trial cannot change
        if operation == 5:
            value = _external(json.loads(log["distribution"]), log["param_value_internal"])
            trial.params[log["param_name"]] = value
        elif operation == 6:
            trial.state = STATES[log["state"]]
        elif operation == 8:
            trial.attrs |= log["user_attr"]


def _external(distribution: dict[str, Any], value: float) -> Any:
    """Return a parameter's value from the number that the journal stores."""
    if "choices" in distribution["attributes"]:
        return distribution["attributes"]["choices"][int(value)]
    return int(value) if distribution["name"].startswith("Int") else value


def count_ended(journal: Path) -> int:
    """Return how many trials ended with a result, without replaying the journal."""
    return len(ENDED.findall(journal.read_bytes())) if journal.exists() else 0


@dataclass
class Run:
    """An active run as MLflow's database has it.

    Attributes:
        losses: every logged dev loss, (step, value).
    """

    id: str
    status: str
    artifact_uri: str
    tags: dict[str, str] = field(default_factory=dict)
    params: dict[str, str] = field(default_factory=dict)
    dev_loss: float | None = None
    losses: list[tuple[int, float]] = field(default_factory=list)

    @property
    def state(self) -> str:
        return self.tags.get("state", "")

    @property
    def trial(self) -> int | None:
        return int(self.tags["trial"]) if "trial" in self.tags else None


def read_runs(database: Path, experiment: str) -> list[Run]:
    """Return the active runs of all experiments with this name."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:

        def rows(query: str) -> Iterable[tuple[Any, ...]]:
            where = (
                "run_uuid IN (SELECT run_uuid FROM runs JOIN experiments USING (experiment_id)"
                " WHERE experiments.name = ? AND runs.lifecycle_stage = 'active')"
            )
            return connection.execute(f"{query} {where}", (experiment,))

        columns = "run_uuid, status, artifact_uri"
        runs = {row[0]: Run(*row) for row in rows(f"SELECT {columns} FROM runs WHERE")}
        for run_id, key, value in rows("SELECT run_uuid, key, value FROM tags WHERE"):
            runs[run_id].tags[key] = value
        for run_id, key, value in rows("SELECT run_uuid, key, value FROM params WHERE"):
            runs[run_id].params[key] = value
        latest = (
            "SELECT run_uuid, value FROM latest_metrics"
            " WHERE key IN ('dev_loss', 'repeat_dev_loss') AND"
        )
        for run_id, value in rows(latest):
            runs[run_id].dev_loss = value
        every = "SELECT run_uuid, step, value FROM metrics WHERE key = 'current_dev_loss' AND"
        for run_id, step, value in rows(every):
            runs[run_id].losses.append((step, value))
    return list(runs.values())


def artifact_folder(run: Run, artifacts: Path) -> Path:
    """Return the folder of a run's files.

    Args:
        run: the run.
        artifacts: the folder in which a server keeps `mlflow-artifacts:/`.
    """
    scheme, _, path = run.artifact_uri.rpartition(":")
    if scheme == "mlflow-artifacts":
        return artifacts / path.lstrip("/")
    return Path("/" + unquote(path).lstrip("/"))
