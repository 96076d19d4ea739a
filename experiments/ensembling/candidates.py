"""The models that an ensemble is selected from: those that the studies kept."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from makemore.data import Corpus, load_corpus
from makemore.errors import UserError
from makemore.model import MLP
from studies.harness.store.study import model_name
from studies.harness.store.trials import dev_loss
from studies.harness.tracking.connection.find import find_experiment
from studies.harness.tracking.models import kept_models


@dataclass(frozen=True)
class Candidate:
    """A kept model and where it comes from; `dev_loss` is its own, in nats per character."""

    study: str
    trial: int
    dev_loss: float
    model: MLP

    @property
    def name(self) -> str:
        """Study and trial, for display."""
        return f"{self.study} trial {self.trial}"


def check_models(studies: Sequence[optuna.Study]) -> None:
    """Refuse a study of a user's model.

    Raises:
        UserError: a study has another model than the MLP.
    """
    for study in studies:
        if (model := study.user_attrs.get("model")) is not None:
            raise UserError(
                f"study {study.study_name!r} has the model {model_name(model)}, but ensembles have "
                "MLPs only; leave this study out."
            )


def load_candidates(studies: Sequence[optuna.Study], client: Any) -> list[Candidate]:
    """Load the kept models of all studies, lowest dev loss first.

    Raises:
        UserError: MLflow does not have a study, or no model was kept.
    """
    found = [candidate for study in studies for candidate in _of_study(study, client)]
    if not found:
        names = ", ".join(study.study_name for study in studies)
        raise UserError(
            f"{names}: no model was kept; search with --keep-models above 0 "
            "(see python studies/mlp.py --help)."
        )
    return sorted(found, key=lambda candidate: candidate.dev_loss)


def _of_study(study: optuna.Study, client: Any) -> Iterator[Candidate]:
    experiment = find_experiment(client, study.study_name)
    for trial, model in kept_models(study, client, experiment.experiment_id):
        loss = dev_loss(trial)
        assert loss is not None
        yield Candidate(study.study_name, trial.number, loss, model)


def load_words(studies: Sequence[optuna.Study], names: Path | None) -> Corpus:
    """Load the words that all studies were made on.

    Raises:
        UserError: a study was made on other words.
    """
    corpus = load_corpus(names)
    for study in studies:
        if corpus.sha256 == study.user_attrs.get("data_sha256"):
            continue
        used = str(names) if names else "the embedded names"
        data = study.user_attrs.get("data")
        raise UserError(
            f"study {study.study_name!r} was made on {data}, not on {used}; give --names the path "
            f"of {data}, and name only studies of the same words."
        )
    return corpus
