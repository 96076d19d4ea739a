"""Register a retrained model in MLflow: log it, make a version of it, and set its alias.

The alias is `champion` if the model beats the present champion, else `challenger`.
"""

from __future__ import annotations

import logging
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from experiments.export import find_commit
from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.text import reason
from studies.harness.tracking.runs import versions

if TYPE_CHECKING:
    from experiments.retraining.results import Retraining

MODEL = "makemore-mlp"
CHAMPION = "champion"
CHALLENGER = "challenger"
WEIGHTS = "model.safetensors"  # name of the checkpoint inside the MLflow model
CODE = Path(__file__).with_name("served_model.py")
# Packages that loading the model needs.
REQUIREMENTS = ("makemore-studies", "mlflow", "torch")


@dataclass(frozen=True)
class Registered:
    """A version of the registered model; `reason` explains its alias."""

    version: str
    alias: str
    reason: str

    @property
    def uri(self) -> str:
        """The address for `mlflow.pyfunc.load_model`."""
        return f"models:/{MODEL}@{self.alias}"


def register(
    client: Any, experiment_id: str, run_id: str, retraining: Retraining, checkpoint: Path
) -> Registered:
    """Log the selected seed's model, and make it a version of MODEL with an alias.

    It becomes the champion if there is none, or if the mean dev loss of its config's seeds is below
    that of the present champion on the same words. Otherwise it becomes the challenger.

    Args:
        run_id: the run of the selected seed, which becomes the model's source.
        checkpoint: file of the selected seed's model.

    Raises:
        UserError: MLflow refused the model.
    """
    try:
        with _quiet():
            model = _log_model(client, experiment_id, run_id, retraining, checkpoint)
            # The lock keeps two processes from comparing with the same champion.
            with exclusive("registry"):
                return _make_version(client, run_id, model, retraining)
    # SQLAlchemy, requests and mlflow raise their own types, some with the password in the message.
    except Exception as error:
        raise UserError(f"MLflow did not take the model {MODEL!r}: {reason(error)}") from None


def find_champion(client: Any) -> Any:
    """Return the champion's model version, or None without a champion."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _log_model(
    client: Any, experiment_id: str, run_id: str, retraining: Retraining, checkpoint: Path
) -> Any:
    """Write the model's folder, losses and dataset to MLflow; returns its LoggedModel."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    selected = retraining.selected
    params = {key: str(value) for key, value in selected.config.model_dump().items()}
    logged = client.create_logged_model(
        experiment_id, name=MODEL, source_run_id=run_id, params=params
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
        save_served(Path(folder, "model"), weights, mlflow_model=description)
        client.log_model_artifacts(model_id, str(Path(folder, "model")))

    step = selected.config.max_steps
    now = int(time.time() * 1000)
    data = {
        "dataset_name": retraining.dataset["name"],
        "dataset_digest": retraining.dataset["sha256"][:32],
    }
    metrics = [
        Metric(key, value, now, step, model_id=model_id, **data)
        for key, value in selected.losses.items()
    ]
    client.log_batch(run_id, metrics)
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    return client.finalize_logged_model(model_id, "READY")


def save_served(folder: Path, checkpoint: Path, **more: Any) -> None:
    """Write a checkpoint as an MLflow model: its serving code, its signature and an example.

    Args:
        folder: the folder to write; it must not exist.
        more: further arguments of mlflow.pyfunc.save_model.
    """
    import mlflow.pyfunc
    import pandas as pd

    example = pd.DataFrame({"prefix": [""], "n": [5], "temperature": [0.8], "seed": [1]})
    # Without this list, MLflow would spend seconds on finding the requirements.
    requirements = [
        f"{name}=={version}" for name, version in versions().items() if name in REQUIREMENTS
    ]
    with _quiet():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(CODE),
            artifacts={"checkpoint": str(checkpoint.absolute())},
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


def _make_version(client: Any, run_id: str, model: Any, retraining: Retraining) -> Registered:
    """Make a version of the registered model, and set its alias."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="Makes up names, character by character.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise

    alias, why = _choose_alias(retraining, find_champion(client))
    # The source is the location: MLflow would resolve models:/ID in its global store.
    version = client.create_model_version(
        MODEL,
        model.artifact_location,
        run_id,
        tags=_version_tags(retraining),
        model_id=model.model_id,
    )
    client.set_registered_model_alias(MODEL, alias, version.version)
    return Registered(str(version.version), alias, why)


def _choose_alias(retraining: Retraining, champion: Any) -> tuple[str, str]:
    """Return the alias of a new version, and the reason."""
    loss = retraining.mean_dev_loss
    if loss is None:
        return CHALLENGER, "trained on dev too, it has no dev loss to compare with the champion's"
    n = len(retraining.seeds)
    mean = f"dev loss {loss:.4f}" if n == 1 else f"mean dev loss {loss:.4f} over {n} seeds"
    if champion is None:
        return CHAMPION, f"the first champion, with {mean}"
    if champion.tags.get("data_sha256") != retraining.dataset["sha256"]:
        return (
            CHALLENGER,
            f"the champion, version {champion.version}, was trained on other words",
        )
    # Versions of earlier releases have the selected seed's loss only.
    best = float(champion.tags.get("mean_dev_loss", champion.tags["dev_loss"]))
    if loss < best:
        return CHAMPION, f"its {mean} is below the {best:.4f} of version {champion.version}"
    return (
        CHALLENGER,
        f"its {mean} is not below the {best:.4f} of the champion, version {champion.version}",
    )


def _version_tags(retraining: Retraining) -> dict[str, str]:
    """Return the tags that describe a version: its config, losses, data and origin."""
    selected = retraining.selected
    by = f"{retraining.select} of {len(retraining.seeds)} seeds by {retraining.selection_loss}"
    tags = {
        **{f"config.{key}": value for key, value in selected.config.model_dump().items()},
        **selected.losses,
        "mean_dev_loss": retraining.mean_dev_loss,
        "n_seeds": len(retraining.seeds),
        "data": retraining.dataset["name"],
        "data_sha256": retraining.dataset["sha256"],
        "git_commit": find_commit(),
        "trained_on": retraining.trained_on,
        "selected": by,
        **{f"origin.{key}": retraining.origin.get(key) for key in ("study", "trial")},
        **{f"teacher.{key}": value for key, value in (retraining.teacher or {}).items()},
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
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
