"""Load a trained model: from a checkpoint file, or from MLflow's registry.

Without a given model, the scripts use the registry's champion, or else the newest checkpoint.
"""

from __future__ import annotations

import contextlib
import io
import re
import sys
import tempfile
from pathlib import Path

from experiments.registry import CHAMPION, find_champion, registered_name
from makemore.ensemble import Trained, load_trained
from makemore.errors import UserError
from makemore.models import ModelClass
from studies.harness.store.paths import MLRUNS
from studies.harness.store.text import reason
from studies.harness.tracking.connection.connect import connect, is_default

CHECKPOINTS = MLRUNS / "checkpoints"
REGISTERED = "models:/"


def open_model(
    source: str | None, tracking_uri: str | None = None, model: ModelClass | None = None
) -> tuple[str, Trained]:
    """Load a model; without a source, choose one and name it on stderr.

    Args:
        source: path of a checkpoint or an ensemble, models:/NAME@ALIAS or models:/NAME/VERSION.
            None takes the champion of makemore-mlp (with a model: of makemore-CLASS) or,
            if there is none, the newest file in mlruns/checkpoints/.
        tracking_uri: MLflow tracking URI of the registry.
        model: class of the user's model; None for an MLP or an ensemble.

    Returns:
        The source that was read, and the model.

    Raises:
        NeedsClass: the model is of another class.
        UserError: no model exists, or it cannot be read.
    """
    if source is not None:
        return source, _load(source, tracking_uri, model)

    source, why = _choose_model(tracking_uri, registered_name(model))
    trained = _load(source, tracking_uri, model)
    print(f"Using {source}: {why}.", file=sys.stderr)
    return source, trained


def _choose_model(tracking_uri: str | None, name: str) -> tuple[str, str]:
    """Return the source of the model to use, and the reason."""
    champion = None
    # connect() would spend seconds on making a missing database, which holds no champion.
    if not is_default(tracking_uri) or (MLRUNS / "mlflow.db").exists():
        champion = find_champion(connect(tracking_uri), name)
    if champion is not None:
        return (
            f"{REGISTERED}{name}@{CHAMPION}",
            f"version {champion.version} is the champion in MLflow's registry",
        )

    files = CHECKPOINTS.glob("*.safetensors")
    newest = max(files, key=lambda path: (path.stat().st_mtime_ns, path.name), default=None)
    if newest is None:
        raise UserError(
            f"{CHECKPOINTS}: holds no checkpoint yet, and MLflow's registry has no champion; "
            "train a model first, or give the path of a checkpoint."
        )
    return str(newest), "it is the newest checkpoint, and MLflow's registry has no champion"


def _load(source: str, tracking_uri: str | None, model: ModelClass | None) -> Trained:
    if source.startswith(REGISTERED):
        return _load_registered(source, tracking_uri, model)
    return load_trained(source, model)


def _load_registered(uri: str, tracking_uri: str | None, model: ModelClass | None) -> Trained:
    """Download the files of a registered model and read its checkpoint."""
    named = re.fullmatch(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if named is None:
        raise UserError(
            f"{uri}: names no version of a model; give models:/NAME@ALIAS or models:/NAME/VERSION."
        )
    name = named["name"]
    client = connect(tracking_uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            # MLflow itself would resolve the alias in its global store, not in this client's.
            version = named["version"]
            if version is None:
                version = client.get_model_version_by_alias(name, named["alias"]).version
            location = client.get_model_version_download_uri(name, version)
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                download_artifacts(location, dst_path=folder, tracking_uri=client.tracking_uri)
        except (MlflowException, OSError) as error:
            raise UserError(f"{uri}: cannot be loaded from MLflow ({reason(error)}).") from None

        found = sorted(Path(folder).rglob("*.safetensors"))
        if len(found) != 1:
            raise UserError(
                f"{uri}: holds {len(found)} safetensors files instead of one, "
                "so it is not a model of this project."
            )
        return load_trained(found[0], model)
