"""Log a model to MLflow: its file, its serving code, its losses and its dataset."""

from __future__ import annotations

import inspect
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from makemore.models import ModelClass
from studies.harness.tracking.runs import versions

WEIGHTS = "model.safetensors"  # name of the checkpoint inside the MLflow model
CODE = Path(__file__).with_name("served_model.py")
# Packages that loading the model needs.
REQUIREMENTS = ("makemore-studies", "mlflow", "torch")


@dataclass(frozen=True)
class Entry:
    """A model for the registry.

    Attributes:
        name: of the registered model.
        description: of the registered model.
        params: params of the logged model.
        losses: its losses by name, in nats per character.
        dataset: the words, from `describe_data`.
        dev_loss: the loss that is compared with the champion's; None if it is unknown.
        loss_text: that loss in words, for messages.
        step: optimizer steps of the model.
        tags: further tags of the version.
        model_class: class of the user's model; its file is stored with the model. None for others.
    """

    name: str
    description: str
    params: dict[str, Any]
    losses: dict[str, float]
    dataset: dict[str, str]
    dev_loss: float | None
    loss_text: str = ""
    step: int = 0
    tags: dict[str, Any] = field(default_factory=dict)
    model_class: ModelClass | None = None


def log_model(client: Any, experiment_id: str, run_id: str, entry: Entry, checkpoint: Path) -> Any:
    """Write the model's folder, losses and dataset to MLflow; returns its LoggedModel."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    params = {key: str(value) for key, value in entry.params.items()}
    logged = client.create_logged_model(
        experiment_id, name=entry.name, source_run_id=run_id, params=params
    )
    model_id = str(logged.model_id)

    with tempfile.TemporaryDirectory() as folder:
        description = Model(
            artifact_path=logged.artifact_location,
            model_uuid=model_id,
            run_id=run_id,
            model_id=model_id,
        )
        weights = Path(folder, WEIGHTS)
        shutil.copy(checkpoint, weights)
        save_served(Path(folder, "model"), weights, entry.model_class, mlflow_model=description)
        client.log_model_artifacts(model_id, str(Path(folder, "model")))

    now = int(time.time() * 1000)
    data = {
        "dataset_name": entry.dataset["name"],
        "dataset_digest": entry.dataset["sha256"][:32],
    }
    metrics = [
        Metric(key, value, now, entry.step, model_id=model_id, **data)
        for key, value in entry.losses.items()
    ]
    client.log_batch(run_id, metrics)
    client.log_outputs(run_id, [LoggedModelOutput(model_id, entry.step)])
    return client.finalize_logged_model(model_id, "READY")


def save_served(
    folder: Path, checkpoint: Path, model_class: ModelClass | None = None, **more: Any
) -> None:
    """Write a checkpoint as an MLflow model: its serving code, its signature and an example.

    Args:
        folder: the folder to write; it must not exist.
        checkpoint: file of the model.
        model_class: class of the user's model. A copy of its file becomes part of the model and
            runs wherever the model is served, as MLflow's other code does.
        more: further arguments of mlflow.pyfunc.save_model.
    """
    import mlflow.pyfunc
    import pandas as pd

    example = pd.DataFrame({"prefix": [""], "n": [5], "temperature": [0.8], "seed": [1]})
    # Without this list, MLflow would spend seconds on finding the requirements.
    requirements = [
        f"{name}=={version}" for name, version in versions().items() if name in REQUIREMENTS
    ]
    artifacts = {"checkpoint": str(checkpoint.absolute())}
    if model_class is not None:
        artifacts["code"] = inspect.getfile(model_class)
    with quiet():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(CODE),
            artifacts=artifacts,
            model_config={} if model_class is None else {"class": model_class.__name__},
            signature=_signature(),
            input_example=example,
            pip_requirements=requirements,
            **more,
        )


def _signature() -> Any:
    """Return the columns and parameters of served_model.NamesModel."""
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    def columns(required: bool, **types: DataType) -> list[ColSpec | TensorSpec]:
        return [ColSpec(kind, name, required=required) for name, kind in types.items()]

    inputs = columns(True, prefix=DataType.string)
    inputs += columns(False, n=DataType.long, temperature=DataType.double, seed=DataType.long)
    outputs = columns(
        True,
        prefix=DataType.string,
        name=DataType.string,
        log_likelihood=DataType.double,
        nats_per_character=DataType.double,
    )
    params = ParamSchema([ParamSpec("probabilities", DataType.boolean, False)])
    return ModelSignature(Schema(inputs), Schema(outputs), params)


@contextmanager
def quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and log messages off the terminal."""
    logger = logging.getLogger("mlflow")
    level = logger.level
    name = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    before = os.environ.get(name)
    logger.setLevel(logging.ERROR)
    os.environ[name] = "false"
    try:
        yield
    finally:
        logger.setLevel(level)
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
