"""A retrained model in MLflow's registry: logged, registered as a version, and held against the present champion."""

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
from typing import Any

from experiments.export import find_commit
from experiments.seeds import TRAIN, Retraining
from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.text import reason
from studies.harness.tracking.client import versions

MODEL = "makemore-mlp"
CHAMPION, CHALLENGER = "champion", "challenger"
WEIGHTS = "model.safetensors"  # what the checkpoint is called inside
CODE = Path(__file__).with_name("served_model.py")
NEEDED = ("makemore-studies", "mlflow", "torch")  # by whoever loads the model


@dataclass(frozen=True)
class Registered:
    """A version of the registered model; `reason` says why it has its alias."""

    version: str
    alias: str
    reason: str

    @property
    def uri(self) -> str:
        """What `mlflow.pyfunc.load_model` takes."""
        return f"models:/{MODEL}@{self.alias}"


def register(
    client: Any, experiment_id: str, run_id: str, done: Retraining, checkpoint: Path
) -> Registered:
    """Log the selected seed's model, and make it a version of MODEL with an alias.

    It becomes the champion when there is none, or when its dev loss is below the present champion's on the same words;
    else it becomes the challenger.

    Args:
        run_id: of the seed's run, which becomes the model's source.

    Raises:
        UserError: MLflow did not take it; one sentence.
    """
    try:
        with _quiet():
            model = _log_model(client, experiment_id, run_id, done, checkpoint)
            with exclusive("registry"):  # between two who both see the same champion
                return _make_version(client, run_id, model, done)
    except (
        Exception
    ) as error:  # SQLAlchemy, requests and mlflow each have their own, and some carry the password
        raise UserError(f"MLflow did not take the model {MODEL!r}: {reason(error)}") from None


def _log_model(
    client: Any, experiment_id: str, run_id: str, done: Retraining, checkpoint: Path
) -> Any:
    """Write the model's folder, its losses and its dataset to MLflow; returns its LoggedModel."""
    from mlflow.entities import LoggedModelOutput, Metric
    from mlflow.models import Model

    config = {key: str(value) for key, value in done.selected.config.model_dump().items()}
    logged = client.create_logged_model(
        experiment_id, name=MODEL, source_run_id=run_id, params=config
    )
    model_id = str(logged.model_id)
    with tempfile.TemporaryDirectory() as folder:
        about = Model(
            artifact_path=logged.artifact_location,
            model_uuid=model_id,
            run_id=run_id,
            model_id=model_id,
        )
        shutil.copy(checkpoint, Path(folder, WEIGHTS))
        save_served(Path(folder, "model"), Path(folder, WEIGHTS), mlflow_model=about)
        client.log_model_artifacts(model_id, str(Path(folder, "model")))
    step, now = done.selected.config.max_steps, int(time.time() * 1000)
    data = {"dataset_name": done.dataset["name"], "dataset_digest": done.dataset["sha256"][:32]}
    losses = done.selected.losses.items()
    client.log_batch(
        run_id, [Metric(key, value, now, step, model_id=model_id, **data) for key, value in losses]
    )
    client.log_outputs(run_id, [LoggedModelOutput(model_id, step)])
    return client.finalize_logged_model(model_id, "READY")


def save_served(folder: Path, checkpoint: Path, **more: Any) -> None:
    """Write a checkpoint as an MLflow model: the code that serves it, its signature and an example.

    Args:
        folder: must not exist.
        more: goes to mlflow.pyfunc.save_model.
    """
    import mlflow.pyfunc
    import pandas as pd
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

    def columns(required: bool, **types: DataType) -> list[ColSpec | TensorSpec]:
        return [ColSpec(kind, name, required=required) for name, kind in types.items()]

    text, whole, real = DataType.string, DataType.long, DataType.double
    asked = columns(True, prefix=text) + columns(False, n=whole, temperature=real, seed=whole)
    answered = columns(True, prefix=text, name=text, log_likelihood=real, nats_per_character=real)
    params = ParamSchema([ParamSpec("probabilities", DataType.boolean, False)])
    signature = ModelSignature(Schema(asked), Schema(answered), params)
    example = pd.DataFrame({"prefix": [""], "n": [5], "temperature": [0.8], "seed": [1]})
    # Given, they need not be found out, which takes seconds.
    requirements = [f"{name}=={version}" for name, version in versions().items() if name in NEEDED]
    with _quiet():
        mlflow.pyfunc.save_model(
            str(folder),
            python_model=str(CODE),
            artifacts={"checkpoint": str(checkpoint.absolute())},
            signature=signature,
            input_example=example,
            pip_requirements=requirements,
            **more,
        )


def _make_version(client: Any, run_id: str, model: Any, done: Retraining) -> Registered:
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(MODEL, description="Makes up names, character by character.")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
    alias, reason = _choose_alias(done, _champion(client))
    # Its place and not models:/ID, which MLflow would look up in the global store, whatever store this client is on.
    made = client.create_model_version(
        MODEL, model.artifact_location, run_id, tags=_version_tags(done), model_id=model.model_id
    )
    client.set_registered_model_alias(MODEL, alias, made.version)
    return Registered(str(made.version), alias, reason)


def _champion(client: Any) -> Any:
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(MODEL, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _choose_alias(done: Retraining, champion: Any) -> tuple[str, str]:
    """The alias, and why."""
    if done.on != TRAIN:
        return CHALLENGER, "trained on dev too, it has no dev loss to beat a champion with"
    loss = done.selected.losses["dev_loss"]
    if champion is None:
        return CHAMPION, f"the first, with dev loss {loss:.4f}"
    theirs = champion.tags
    if theirs.get("data_sha256") != done.dataset["sha256"]:
        return (
            CHALLENGER,
            f"version {champion.version} was trained on other words, and stays the champion",
        )
    before = float(theirs["dev_loss"])
    if loss < before:
        return (
            CHAMPION,
            f"its dev loss {loss:.4f} beats the {before:.4f} of version {champion.version}",
        )
    return (
        CHALLENGER,
        f"its dev loss {loss:.4f} does not beat the {before:.4f} of the champion, version {champion.version}",
    )


def _version_tags(done: Retraining) -> dict[str, str]:
    config = {f"config.{key}": value for key, value in done.selected.config.model_dump().items()}
    tags = {
        **config,
        **done.selected.losses,
        "data": done.dataset["name"],
        "data_sha256": done.dataset["sha256"],
        "git_commit": find_commit(),
        "trained_on": done.on,
        "selected": f"{done.select} of {len(done.replicas)} seeds by {done.decides}",
        **{f"origin.{key}": done.origin.get(key) for key in ("study", "trial")},
    }
    return {key: str(value) for key, value in tags.items() if value is not None}


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep MLflow's progress bars and remarks off the terminal."""
    logger, name = logging.getLogger("mlflow"), "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"
    level, before = logger.level, os.environ.get(name)
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
