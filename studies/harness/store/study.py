"""Open a study: make it or take it up again, and refuse what would mix two different searches in one study."""

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
    """A study that exists, to be read.

    Raises:
        UserError: there is none of that name; one sentence that names those that exist.
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
    """Make a study, or take one up again.

    Args:
        space: each parameter's range as JSON, from `search.spaces.describe`.
        seed: of the study; None takes the stored one, or 0 for a new study.
        launched_with: how the script was called (script, flags, names), to be kept with a new study.
        first: parameters to try before the sampler proposes any.

    Raises:
        UserError: the study exists with another base config, space, data or seed; names what differs.
    """
    store = open_storage(storage, check_study_name(name))
    with exclusive(f"ask-{name}"):
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        study = optuna.create_study(
            study_name=name, storage=store, direction="minimize", pruner=pruner, load_if_exists=True
        )
        facts = {
            "base": base.model_dump(exclude={"seed"}),
            "space": space,
            "data_sha256": corpus.sha256,
        }
        if "base" in study.user_attrs:
            _check_same(study, facts, seed)
        else:
            for key, value in {
                **facts,
                "seed": seed or 0,
                "data": corpus.source,
                **launched_with,
            }.items():
                study.set_user_attr(key, value)
            if first is not None:
                study.enqueue_trial(first, user_attrs={"origin": "the lecture's configuration"})
    return study


def _check_same(study: optuna.Study, facts: dict[str, Any], seed: int | None) -> None:
    stored = dict(study.user_attrs)
    stored["base"] = (
        Config().model_dump(exclude={"seed"}) | stored["base"]
    )  # fields that came later had their default
    differences = []
    for table in ("base", "space"):
        for key in sorted({*facts[table], *stored[table]}):
            old, new = stored[table].get(key), facts[table].get(key)
            if old != new:
                differences.append(f"{key} was {format_range(old)} and now is {format_range(new)}")
    if stored["data_sha256"] != facts["data_sha256"]:
        differences.append("the file of words has changed")
    if seed is not None and seed != stored["seed"]:
        differences.append(f"seed was {stored['seed']} and now is {seed}")
    if differences:
        raise UserError(
            f"study {study.study_name!r} was begun with other settings: {'; '.join(differences)}. Take the old "
            "settings to go on with it, or another --study for a new one."
        )


def format_range(value: Any) -> str:
    """A range as `0.001 to 1.0 (log)`; anything else as it is."""
    if not (isinstance(value, str) and value.startswith("{")):
        return "absent" if value is None else str(value)
    fields = json.loads(value)["attributes"]
    if "choices" in fields:
        return "one of " + "/".join(map(str, fields["choices"]))
    return f"{fields['low']} to {fields['high']}" + (" (log)" if fields.get("log") else "")
