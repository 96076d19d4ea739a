"""Writes many runs in one transaction: to the tables of MLflow's SQLite or PostgreSQL database.

An MlflowClient needs 47 SQL statements for the run of a trial. This module needs one statement for
each table and all runs of a batch. It uses MLflow's own table classes, and writes the same rows as
MLflow's client (mlflow/store/tracking/sqlalchemy_store.py). Import it only if the version of MLflow
is the tested one, because other versions may have other tables.
"""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.store.tracking.dbmodels.models import (
    SqlDataset,
    SqlExperiment,
    SqlInput,
    SqlInputTag,
    SqlLatestMetric,
    SqlMetric,
    SqlParam,
    SqlRun,
    SqlTag,
)
from mlflow.utils.uri import append_to_uri_path
from mlflow.utils.validation import (
    MAX_ENTITY_KEY_LENGTH,
    _validate_length_limit,
    _validate_metric_name,
    _validate_param,
    _validate_tag,
)
from sqlalchemy import bindparam, func, insert, select, tuple_, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import aliased

from studies.harness.tracking.fields import MetricRow

RUN_NAME = "mlflow.runName"  # the tag that repeats the name of a run
KEYS = ["key", "run_uuid"]  # the primary key of tags and latest_metrics
END = (
    update(SqlRun.__table__)
    .where(SqlRun.run_uuid == bindparam("run_id"))
    .values(name=bindparam("to_name"), status=bindparam("to_status"), end_time=bindparam("at"))
)


@dataclass
class RunUpdate:
    """What a transaction writes of one run.

    Attributes:
        run_id: id of the run.
        tags: tags to set; they replace those with the same keys.
        metrics: metrics to add; those that are not finite are left out.
        started: start of a new run, in milliseconds since the epoch; None if the run exists.
        name: name of a new run.
        params: params of a new run.
    """

    run_id: str
    tags: dict[str, str]
    metrics: Sequence[MetricRow]
    started: int | None = None
    name: str = ""
    params: dict[str, Any] = field(default_factory=dict)


@dataclass
class RunEnd:
    """How a run ended: its MLflow status, its last name, and the time in milliseconds."""

    run_id: str
    name: str
    status: str
    ended: int


class Tables:
    """The tables of MLflow's database, for the runs of one experiment.

    Every method may raise what MLflow raises; nothing of its transaction is written then.

    Args:
        store: MLflow's SqlAlchemyStore.
        experiment_id: id of the experiment.
        dataset: name, sha256 and source of the words.
    """

    def __init__(self, store: Any, experiment_id: int, dataset: dict[str, str]) -> None:
        self._store = store
        self._experiment_id = experiment_id
        self._dataset = dataset

    def written(self, trials: Iterable[int]) -> set[tuple[int, str]]:
        """Return the trial and the launch of each run of these trials that exists."""
        trial, launch = aliased(SqlTag), aliased(SqlTag)
        query: Any = (
            select(trial.value, launch.value)
            .join(SqlRun, SqlRun.run_uuid == trial.run_uuid)
            .join(launch, launch.run_uuid == trial.run_uuid)
            .where(trial.key == "trial", trial.value.in_([str(number) for number in trials]))
            .where(launch.key == "launch", SqlRun.experiment_id == self._experiment_id)
            .where(SqlRun.lifecycle_stage == "active")
        )
        # read_only would ask a replica, which may lack the newest runs.
        with self._store.ManagedSessionMaker(read_only=False) as session:
            return {(int(number), name) for number, name in session.execute(query)}

    def write(self, updates: Sequence[RunUpdate]) -> str:
        """Write runs in one transaction; returns the experiment's artifact location.

        Raises:
            MlflowException: the experiment or a run is deleted.
        """
        new = [run for run in updates if run.started is not None]
        known = [run.run_id for run in updates if run.started is None]
        with self._store.ManagedSessionMaker(read_only=False) as session:
            location = self._artifact_location(session)
            self._check_active(session, known)
            # All reads come before the first write, which locks an SQLite database.
            dataset_id = self._dataset_id(session) if new else ""
            self._insert_runs(session, new, location)
            self._insert_inputs(session, new, dataset_id)
            self._insert_metrics(session, updates)
            self._set_tags(session, updates)
        return location

    def end(self, ends: Sequence[RunEnd]) -> None:
        """End runs in one transaction."""
        rows = [
            {"run_id": end.run_id, "to_name": end.name, "to_status": end.status, "at": end.ended}
            for end in ends
        ]
        with self._store.ManagedSessionMaker(read_only=False) as session:
            _execute(session, END, rows)

    def artifact_uri(self, location: str, run_id: str) -> str:
        """Return where a run has its artifacts, below the experiment's artifact location."""
        return str(append_to_uri_path(location, run_id, self._store.ARTIFACTS_FOLDER_NAME))

    # ---- reads

    def _artifact_location(self, session: Any) -> str:
        query: Any = select(SqlExperiment.artifact_location).where(
            SqlExperiment.experiment_id == self._experiment_id,
            SqlExperiment.lifecycle_stage == "active",
        )
        location: str | None = session.execute(query).scalar()
        if location is None:
            raise MlflowException(f"experiment {self._experiment_id} is not active")
        return location

    def _check_active(self, session: Any, run_ids: list[str]) -> None:
        query: Any = select(func.count()).where(
            SqlRun.run_uuid.in_(run_ids), SqlRun.lifecycle_stage == "active"
        )
        if run_ids and session.execute(query).scalar() != len(run_ids):
            raise MlflowException("a run was deleted while its trial was trained")

    def _dataset_id(self, session: Any) -> str:
        """Return the id of the dataset, which the database has since it has the parent run."""
        query: Any = select(SqlDataset.dataset_uuid).where(
            SqlDataset.experiment_id == self._experiment_id,
            SqlDataset.name == self._dataset["name"],
            SqlDataset.digest == self._dataset["sha256"][:32],
        )
        return str(session.execute(query).scalar_one())

    # ---- writes

    def _insert_runs(self, session: Any, new: list[RunUpdate], location: str) -> None:
        """Insert runs with their params, as MLflow's `create_run` and `_log_params` do."""
        runs = [
            {
                "run_uuid": run.run_id,
                "name": run.name,
                "source_type": "UNKNOWN",
                "source_name": "",
                "entry_point_name": "",
                "user_id": run.tags.get("mlflow.user", "unknown"),
                "status": "RUNNING",
                "start_time": run.started,
                "end_time": None,
                "deleted_time": None,
                "source_version": "",
                "lifecycle_stage": "active",
                "artifact_uri": self.artifact_uri(location, run.run_id),
                "experiment_id": self._experiment_id,
            }
            for run in new
        ]
        _execute(session, insert(SqlRun.__table__), runs)
        params = []
        for run in new:
            for key, value in run.params.items():
                param = _validate_param(key, str(value))  # may shorten the value
                params.append({"key": key, "value": param.value, "run_uuid": run.run_id})
        _execute(session, insert(SqlParam.__table__), params)

    def _insert_inputs(self, session: Any, new: list[RunUpdate], dataset_id: str) -> None:
        """Insert the dataset as an input of new runs, as MLflow's `_log_inputs_impl` does."""
        inputs = [
            {
                "input_uuid": new_id(),
                "source_type": "DATASET",
                "source_id": dataset_id,
                "destination_type": "RUN",
                "destination_id": run.run_id,
            }
            for run in new
        ]
        tag = {"name": "mlflow.data.context", "value": "training"}
        tags = [{"input_uuid": row["input_uuid"], **tag} for row in inputs]
        _execute(session, insert(SqlInput.__table__), inputs)
        _execute(session, insert(SqlInputTag.__table__), tags)

    def _insert_metrics(self, session: Any, updates: Sequence[RunUpdate]) -> None:
        """Insert metrics and update the latest ones, as MLflow's `_log_metrics_once` does."""
        rows: list[dict[str, Any]] = []
        latest: list[dict[str, Any]] = []
        for run in updates:
            last: dict[str, dict[str, Any]] = {}
            for key, value, step, at in run.metrics:
                if not math.isfinite(value):
                    continue
                _check_metric_name(key)
                row = {
                    "key": key,
                    "value": float(value),
                    "timestamp": int(at * 1000),
                    "step": step,
                    "is_nan": False,
                    "run_uuid": run.run_id,
                }
                rows.append(row)
                if key not in last or _age(row) > _age(last[key]):
                    last[key] = row
            latest += last.values()
        _execute(session, insert(SqlMetric.__table__), rows)

        upsert = self._upsert(SqlLatestMetric)
        new = upsert.excluded
        later = tuple_(new.step, new.timestamp, new.value) > tuple_(
            SqlLatestMetric.step, SqlLatestMetric.timestamp, SqlLatestMetric.value
        )
        changed = {key: new[key] for key in ("value", "timestamp", "step", "is_nan")}
        upsert = upsert.on_conflict_do_update(index_elements=KEYS, set_=changed, where=later)
        _execute(session, upsert, latest)

    def _set_tags(self, session: Any, updates: Sequence[RunUpdate]) -> None:
        """Set tags, as MLflow's `create_run` and `_set_tags` do."""
        rows = []
        for run in updates:
            for key, value in run.tags.items():
                # MLflow checks the tags of existing runs only, and may shorten their values.
                text = value if run.started is not None else _validate_tag(key, value).value
                rows.append({"key": key, "value": text, "run_uuid": run.run_id})
            if run.started is not None:
                rows.append({"key": RUN_NAME, "value": run.name, "run_uuid": run.run_id})
        upsert = self._upsert(SqlTag)
        changed = {"value": upsert.excluded.value}
        upsert = upsert.on_conflict_do_update(index_elements=KEYS, set_=changed)
        _execute(session, upsert, rows)

    def _upsert(self, model: Any) -> Any:
        """Return an insert of the database's dialect, which knows ON CONFLICT."""
        module = sqlite if self._store.engine.dialect.name == "sqlite" else postgresql
        return module.insert(model.__table__)


def new_id() -> str:
    """Return a new id for a run, as 32 hexadecimal digits.

    It begins with the time (UUID version 7, RFC 9562), so new rows come last in each index. With
    MLflow's random ids, an SQLite database of 5,000 runs needs twice the time for a run.
    """
    return f"{time.time_ns() // 1_000_000:012x}7{uuid.uuid4().hex[13:]}"


def _age(row: dict[str, Any]) -> tuple[int, int, float]:
    """Return by what MLflow finds the latest of several metrics."""
    return row["step"], row["timestamp"], row["value"]


@cache
def _check_metric_name(name: str) -> None:
    _validate_metric_name(name)
    _validate_length_limit("Metric name", MAX_ENTITY_KEY_LENGTH, name)


def _execute(session: Any, statement: Any, rows: list[dict[str, Any]]) -> None:
    if rows:
        session.execute(statement, rows)
