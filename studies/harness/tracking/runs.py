"""Single MLflow runs that no study made: a range test, a retrained config. Written whole, once everything is known."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from makemore.data import Corpus
from makemore.errors import UserError
from studies.harness.store.text import reason
from studies.harness.tracking.client import context_tags, log_batch, log_inputs


def describe_data(corpus: Corpus, names: Path | None) -> dict[str, str]:
    """The words as MLflow's dataset: name, sha256, source. `names` is their file, or None for the embedded names."""
    source = str(names.absolute()) if names else f"makemore/{corpus.source}"
    return {"name": corpus.source, "sha256": corpus.sha256, "source": source}


@dataclass(frozen=True)
class FinishedRun:
    """What is written of a run.

    Attributes:
        metrics: (key, value, step); what the compare page shall preselect comes first.
        files: become the run's artifacts.
    """

    name: str
    params: dict[str, Any]
    metrics: Sequence[tuple[str, float, int]]
    tags: dict[str, str] = field(default_factory=dict)
    files: Sequence[Path] = ()
    started: float = field(default_factory=time.time)  # seconds since the epoch


def log_run(
    client: Any,
    experiment_id: str,
    run: FinishedRun,
    dataset: dict[str, str],
    *,
    parent_id: str | None = None,
) -> str:
    """Write a finished run to MLflow, and return its id.

    Args:
        dataset: as `describe_data` gives it.
        parent_id: id of the run under which it stands.

    Raises:
        UserError: MLflow did not take it; one sentence.
    """
    tags = {
        **context_tags(),
        **run.tags,
        **({"mlflow.parentRunId": parent_id} if parent_id else {}),
    }
    first = time.time() - len(run.metrics) / 1000
    # One millisecond apart, so that the last value of a key at a step is the one that tables show.
    rows = [
        (key, value, step, first + i / 1000) for i, (key, value, step) in enumerate(run.metrics)
    ]
    try:
        made = client.create_run(experiment_id, int(run.started * 1000), tags, run_name=run.name)
        run_id = str(made.info.run_id)
        log_batch(client, run_id, rows, params=run.params)
        log_inputs(client, run_id, dataset)
        for path in run.files:
            client.log_artifact(run_id, str(path))
        client.set_terminated(run_id, "FINISHED")
    except (
        Exception
    ) as error:  # SQLAlchemy, requests and mlflow each have their own, and some carry the password
        raise UserError(f"MLflow did not take run {run.name!r}: {reason(error)}") from None
    return run_id
