"""Models that a study kept, read from MLflow and from the outbox."""

from __future__ import annotations

from pathlib import Path

from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus, load_corpus
from makemore.evaluation import evaluate
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked
from studies.harness.tracking.connection.connect import connect
from studies.harness.tracking.connection.find import get_experiment
from studies.harness.tracking.models import kept_models
from tests.studies.conftest import Launcher


def test_kept_models_come_best_first(launch: Launcher, names: Path) -> None:
    assert launch(keep_models=3) == 0
    study = load_study("small", None)
    client = connect(None)
    corpus = load_corpus(names)

    found = list(kept_models(study, client, get_experiment(client, "small")))

    best = ranked(study.get_trials())[:3]
    assert [trial.number for trial, _ in found] == [trial.number for trial in best]
    for trial, model in found:
        assert evaluate(model, corpus.dev) == dev_loss(trial)


def test_outbox_is_read_before_mlflow(launch: Launcher, names: Path) -> None:
    assert launch() == 0
    study = load_study("small", None)
    corpus: Corpus = load_corpus(names)
    client = connect(None)
    stored = dict(
        (trial.number, model)
        for trial, model in kept_models(study, client, get_experiment(client, "small"))
    )
    outbox = Path("outbox")
    for number, model in stored.items():
        folder = outbox / f"{number:05d}-launch"
        save_checkpoint(folder / "model.safetensors", model, corpus.vocab)

    # Without a client, MLflow cannot be asked.
    found = list(kept_models(study, None, "1", outbox))

    assert {trial.number for trial, _ in found} == stored.keys()
    # A study that MLflow does not have has no models outside the outbox.
    assert list(kept_models(study, client, None)) == []
