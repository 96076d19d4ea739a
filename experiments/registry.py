"""Register a model in MLflow: log it, make a version of it, and set its alias.

The alias is `champion` if the model beats the present champion, else `challenger`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.logged_model import Entry, log_model, quiet
from makemore.errors import UserError
from makemore.models import ModelClass
from studies.harness.report.export import find_commit
from studies.harness.store.locks import exclusive
from studies.harness.store.text import reason

MODEL = "makemore-mlp"
CHAMPION = "champion"
CHALLENGER = "challenger"
ENSEMBLE = "makemore-ensemble"


def registered_name(model: ModelClass | None) -> str:
    """Return the name under which a model is registered, for example makemore-wavenet.

    Args:
        model: class of the user's model; None for the MLP.
    """
    return MODEL if model is None else f"makemore-{model.__name__.lower()}"


@dataclass(frozen=True)
class Registered:
    """A version of the registered model; `reason` explains its alias."""

    version: str
    alias: str
    reason: str
    name: str = MODEL

    @property
    def uri(self) -> str:
        """The address for `mlflow.pyfunc.load_model`."""
        return f"models:/{self.name}@{self.alias}"


def register(
    client: Any, experiment_id: str, run_id: str, entry: Entry, checkpoint: Path
) -> Registered:
    """Log a model, and make it a version of the registered model of its name, with an alias.

    It becomes the champion if there is none, or if its dev loss is below that of the present
    champion on the same words. Otherwise it becomes the challenger.

    Args:
        run_id: the run that becomes the model's source.
        checkpoint: file of the model.

    Raises:
        UserError: MLflow refused the model.
    """
    try:
        with quiet():
            model = log_model(client, experiment_id, run_id, entry, checkpoint)
            # The lock keeps two processes from comparing with the same champion.
            with exclusive("registry"):
                return _make_version(client, run_id, model, entry)
    # SQLAlchemy, requests and mlflow raise their own types, some with the password in the message.
    except Exception as error:
        raise UserError(f"MLflow did not take the model {entry.name!r}: {reason(error)}") from None


def find_champion(client: Any, name: str = MODEL) -> Any:
    """Return the model version of a registered model's champion, or None without a champion."""
    from mlflow.exceptions import MlflowException

    try:
        return client.get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _make_version(client: Any, run_id: str, model: Any, entry: Entry) -> Registered:
    """Make a version of the registered model, and set its alias."""
    from mlflow.exceptions import MlflowException

    try:
        client.create_registered_model(entry.name, description=entry.description)
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise

    alias, why = _choose_alias(entry, find_champion(client, entry.name))
    # The source is the location: MLflow would resolve models:/ID in its global store.
    version = client.create_model_version(
        entry.name,
        model.artifact_location,
        run_id,
        tags=_version_tags(entry),
        model_id=model.model_id,
    )
    client.set_registered_model_alias(entry.name, alias, version.version)
    return Registered(str(version.version), alias, why, entry.name)


def _choose_alias(entry: Entry, champion: Any) -> tuple[str, str]:
    """Return the alias of a new version, and the reason."""
    loss = entry.dev_loss
    if loss is None:
        return CHALLENGER, "trained on dev too, it has no dev loss to compare with the champion's"
    mean = entry.loss_text
    if champion is None:
        return CHAMPION, f"the first champion, with {mean}"
    if champion.tags.get("data_sha256") != entry.dataset["sha256"]:
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


def _version_tags(entry: Entry) -> dict[str, str]:
    """Return the tags that describe a version: its losses, data and origin."""
    tags = {
        **entry.losses,
        "mean_dev_loss": entry.dev_loss,
        "data": entry.dataset["name"],
        "data_sha256": entry.dataset["sha256"],
        "git_commit": find_commit(),
        **entry.tags,
    }
    return {key: str(value) for key, value in tags.items() if value is not None}
