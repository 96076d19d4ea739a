"""Loads the models that a study kept: the checkpoints of its best trials."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, overload

import optuna
from optuna.trial import FrozenTrial

from makemore.checkpoint import load_checkpoint
from makemore.errors import UserError
from makemore.model import MLP
from makemore.models import Model, ModelClass
from studies.harness.store.trials import ranked
from studies.harness.tracking.connection.find import find_runs

CHECKPOINT = "model.safetensors"  # among a run's artifacts, and in a trial's folder


def kept_models(
    study: optuna.Study, client: Any, experiment_id: str | None, outbox: Path | None = None
) -> Iterator[tuple[FrozenTrial, MLP]]:
    """Load the models that a study kept, one at a time, lowest dev loss first.

    Args:
        client: an MlflowClient.
        experiment_id: of the study; None if MLflow does not have it.
        outbox: folder with files that were not sent yet; None if all were sent.
    """

    for trial in ranked(study.get_trials(deepcopy=False)):
        if not trial.user_attrs["summary"].get("has_model", False):
            continue
        found = _unsent(outbox, trial.number)
        if found is None and experiment_id:
            # One query a trial, because the caller may stop early: all runs take seconds to read.
            runs = find_runs(client, experiment_id, trial=trial.number)
            models = (download_model(client, run) for run in runs)
            found = next((model for model in models if model is not None), None)
        if found is not None:
            yield trial, found


def _unsent(outbox: Path | None, number: int) -> MLP | None:
    """Return the model in the outbox; None without one, or if it has just been sent."""
    try:
        for folder in outbox.glob(f"{number:05d}-*") if outbox else ():
            return load_checkpoint(folder / CHECKPOINT).model
    except (OSError, UserError):
        pass
    return None


@overload
def download_model(client: Any, run: Any, model: None = None) -> MLP | None: ...
@overload
def download_model(client: Any, run: Any, model: ModelClass | None) -> Model | None: ...
def download_model(client: Any, run: Any, model: ModelClass | None = None) -> Model | None:
    """Return the model among a run's artifacts; None without one.

    Args:
        client: an MlflowClient.
        run: the MLflow run.
        model: class of the user's model; None for the MLP.
    """
    from mlflow.utils.file_utils import local_file_uri_to_path
    from mlflow.utils.uri import is_local_uri

    if is_local_uri(run.info.artifact_uri):
        # MLflow's client would read the run from the database twice, and copy the file.
        file = Path(local_file_uri_to_path(run.info.artifact_uri), CHECKPOINT)
        return load_checkpoint(file, model).model if file.exists() else None
    run_id = run.info.run_id
    if CHECKPOINT not in {item.path for item in client.list_artifacts(run_id)}:
        return None
    with tempfile.TemporaryDirectory() as folder:
        file = client.download_artifacts(run_id, CHECKPOINT, folder)
        return load_checkpoint(file, model).model
