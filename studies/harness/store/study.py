"""Opens a study: creates or resumes it, and refuses to mix two different searches in one study."""

from __future__ import annotations

import json
from typing import Any

import optuna
from optuna.pruners import BasePruner

from makemore.config import Config
from makemore.data import Corpus
from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.storage import open_storage
from studies.harness.store.text import check_study_name


def load_study(name: str, storage: str | None) -> optuna.Study:
    """Load an existing study for reading.

    Args:
        name: name of the study.
        storage: as in `open_storage`.

    Raises:
        UserError: the storage or the study does not exist; names the studies that do.
    """
    store = open_storage(storage, check_study_name(name), create=False)
    try:
        return optuna.load_study(study_name=name, storage=store)
    except KeyError:
        known = sorted(study.study_name for study in store.get_all_studies())
        raise UserError(
            f"no study {name!r} in this storage; it holds {', '.join(known) or 'none'}."
        ) from None


def open_study(
    name: str,
    storage: str | None,
    *,
    space: dict[str, str],
    base: Config,
    corpus: Corpus,
    seed: int | None,
    pruner: BasePruner,
    launched_with: dict[str, Any],
    first: dict[str, Any] | None,
) -> optuna.Study:
    """Create a study, or resume it if it exists.

    Args:
        name: name of the study.
        storage: as in `open_storage`.
        space: each parameter's range as JSON, from `search.spaces.describe`.
        base: the config whose fields the space replaces.
        corpus: the words; the study stores their checksum.
        seed: seed of the study; None means the stored one, or 0 for a new study.
        pruner: Optuna's pruner for this launch.
        launched_with: how the script was called (script, flags, names); stored with a new study.
        first: parameters to try before the sampler proposes any; enqueued in a new study.

    Raises:
        UserError: the study exists with another base config, space, data or seed; names the
            differences.
    """
    store = open_storage(storage, check_study_name(name))
    settings = {
        "base": base.model_dump(exclude={"seed"}),
        "space": space,
        "data_sha256": corpus.sha256,
    }
    with exclusive(f"ask-{name}"):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=name, storage=store, direction="minimize", pruner=pruner, load_if_exists=True
        )
        if "base" in study.user_attrs:
            _check_same(study, settings, seed)
            return study

        attrs = {**settings, "seed": seed or 0, "data": corpus.source, **launched_with}
        for key, value in attrs.items():
            study.set_user_attr(key, value)
        if first is not None:
            study.enqueue_trial(first, user_attrs={"origin": "the lecture's configuration"})
    return study


def _check_same(study: optuna.Study, settings: dict[str, Any], seed: int | None) -> None:
    """Refuse settings that differ from those the study was created with."""
    stored = dict(study.user_attrs)
    # A field that was added after the study was created had its default.
    stored["base"] = Config().model_dump(exclude={"seed"}) | stored["base"]

    differences = []
    for table in ("base", "space"):
        for key in sorted({*settings[table], *stored[table]}):
            old = stored[table].get(key)
            new = settings[table].get(key)
            if old != new:
                differences.append(f"{key} was {format_range(old)} and now is {format_range(new)}")
    if stored["data_sha256"] != settings["data_sha256"]:
        differences.append("the file of words has changed")
    if seed is not None and seed != stored["seed"]:
        differences.append(f"seed was {stored['seed']} and now is {seed}")

    if differences:
        raise UserError(
            f"study {study.study_name!r} was begun with other settings: {'; '.join(differences)}. "
            "Use the old settings to resume it, or another --study to start a new one."
        )


def format_range(value: Any) -> str:
    """Return a range as text, for example `0.001 to 1.0 (log)`, and any other value unchanged.

    Args:
        value: a range as JSON, None for a parameter that is not searched, or a single value.
    """
    if value is None:
        return "absent"
    if not (isinstance(value, str) and value.startswith("{")):
        return str(value)
    fields = json.loads(value)["attributes"]
    if "choices" in fields:
        return "one of " + "/".join(map(str, fields["choices"]))
    return f"{fields['low']} to {fields['high']}" + (" (log)" if fields.get("log") else "")
