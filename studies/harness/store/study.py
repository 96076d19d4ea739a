"""Opens a study: creates or resumes it, and refuses to mix two different searches in one study."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import optuna
from optuna.pruners import BasePruner

from makemore.config import Config, field_defaults
from makemore.data import Corpus
from makemore.errors import UserError
from studies.harness.store.locks import exclusive
from studies.harness.store.storage import NoStudy, open_storage
from studies.harness.store.text import check_study_name

if TYPE_CHECKING:
    from makemore.models import ModelClass


def load_study(name: str, storage: str | None) -> optuna.Study:
    """Load an existing study for reading.

    Args:
        name: name of the study.
        storage: as in `open_storage`.

    Raises:
        NoStudy: the storage or the study does not exist; names the studies that do.
    """
    store = open_storage(storage, check_study_name(name), create=False)
    try:
        return optuna.load_study(study_name=name, storage=store)
    except KeyError:
        known = sorted(study.study_name for study in store.get_all_studies())
        raise NoStudy(
            f"no study {name!r} in this storage; it holds {', '.join(known) or 'none'}."
        ) from None


def find_study(name: str, storage: str | None) -> optuna.Study | None:
    """Load a study for reading if it exists; creates neither the study nor its storage.

    Args:
        name: name of the study.
        storage: as in `open_storage`.
    """
    try:
        study = load_study(name, storage)
    except NoStudy:
        return None
    return study if "base" in study.user_attrs else None


def unused_name(name: str, storage: str | None) -> str:
    """Return the first of NAME-2, NAME-3 and so on that no study has."""
    return next(new for new in _numbered(name) if find_study(new, storage) is None)


def free_name(name: str, study: optuna.Study, storage: str | None) -> str:
    """Return the name, or the first of NAME-2, NAME-3 and so on, that no study has.

    Args:
        name: the wanted name.
        study: an open study of the same storage.
        storage: of the command line; None has a journal for each study.
    """
    if storage is None:
        return name if find_study(name, None) is None else unused_name(name, None)
    known = optuna.get_all_study_names(study._storage)  # a new connection would not wait
    return next(new for new in itertools.chain([name], _numbered(name)) if new not in known)


def _numbered(name: str) -> Iterator[str]:
    return (f"{name[:95]}-{n}" for n in itertools.count(2))


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
    ranges: dict[str, str] | None = None,
    model: ModelClass | None = None,
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
        ranges: --range as given, by the name of the parameter; stored with a new study.
        model: class of the user's model; None for the MLP.

    Raises:
        OtherSettings: the study exists with another base config, space, model, data or seed; names
            the differences.
    """
    store = open_storage(storage, check_study_name(name))
    settings = study_settings(space, base, corpus, model)
    with exclusive(f"ask-{name}", store):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=name, storage=store, direction="minimize", pruner=pruner, load_if_exists=True
        )
        if "base" in study.user_attrs:
            check_same(study, settings, seed, type(base))
            return study

        attrs = {**settings, "seed": seed or 0, "data": corpus.source, **launched_with}
        attrs["ranges"] = ranges or {}
        for key, value in attrs.items():
            study.set_user_attr(key, value)
        if first is not None:
            study.enqueue_trial(first, user_attrs={"origin": "the lecture's configuration"})
    return study


def study_settings(
    space: dict[str, str], base: Config, corpus: Corpus, model: ModelClass | None
) -> dict[str, Any]:
    """Return what a study keeps for all its launches; for the arguments see `open_study`."""
    source = code = None
    if model is not None:
        from makemore.model_class import code_of, source_of  # loads torch, which takes seconds

        source, code = source_of(model), code_of(model)
    return {
        "base": base.model_dump(exclude={"seed"}),
        "space": space,
        "data_sha256": corpus.sha256,
        "model": source,
        "model_code": code,
    }


class OtherSettings(UserError):
    """A study exists with other settings.

    Attributes:
        reason: the message without its advice.
    """

    def __init__(self, study: str, differences: list[str]) -> None:
        self.reason = f"study {study!r} was begun with other settings: {'; '.join(differences)}"
        super().__init__(
            f"{self.reason}. Use the old settings to resume it, or another --study to start a new "
            "one."
        )


def check_same(
    study: optuna.Study, settings: dict[str, Any], seed: int | None, config_class: type[Config]
) -> None:
    """Refuse settings that differ from those the study was created with.

    Args:
        study: the study.
        settings: from `study_settings`.
        seed: as in `open_study`.
        config_class: of the base config.

    Raises:
        OtherSettings: names the differences.
    """
    stored = dict(study.user_attrs)
    # A field that was added after the study was created had its default.
    stored["base"] = field_defaults(config_class) | stored["base"]

    differences = []
    for table in ("base", "space"):
        for key in sorted({*settings[table], *stored[table]}):
            old = stored[table].get(key)
            new = settings[table].get(key)
            if old != new:
                what = key if table == "base" else f"the range of {key}"
                differences.append(f"{what} was {format_range(old)} and now is {format_range(new)}")
    old_model = model_name(stored.get("model"))
    new_model = model_name(settings["model"])
    if old_model != new_model:
        differences.append(f"the model was {old_model} and now is {new_model}")
    elif None not in (codes := (stored.get("model_code"), settings["model_code"])):
        if codes[0] != codes[1]:
            differences.append(f"the code of {new_model} has changed")
    if stored["data_sha256"] != settings["data_sha256"]:
        differences.append("the file of words has changed")
    if seed is not None and seed != stored["seed"]:
        differences.append(f"seed was {stored['seed']} and now is {seed}")

    if differences:
        raise OtherSettings(study.study_name, differences)


def model_name(source: str | None) -> str:
    """Return the name of a study's model: the class in FILE.py:CLASS, or "the MLP" for None."""
    return "the MLP" if source is None else source.rpartition(":")[2]


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
