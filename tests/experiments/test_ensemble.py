"""ensemble.py: the file, the losses, MLflow's record, and refused input."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest

from makemore.data import load_corpus
from makemore.ensemble import load
from makemore.sampling import sample_words, score_words
from makemore.selection import ALONE, ENSEMBLE, ENSEMBLE_MIXED, HALF, MIXED
from makemore.words import read_words, split_words
from studies.harness.cli.args import StudyArgs
from studies.harness.search.launch import run_study
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.mlp import space
from tests.conftest import Ran
from tests.experiments.conftest import BASE

SCRIPT = "experiments/ensemble.py"
Run = Callable[..., Ran]


@pytest.fixture
def ensemble(workdir: Path, run_file: Any, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Run ensemble.py on the words of the study, in a folder whose store mlflow uses too."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri())
    return lambda *flags: run_file(SCRIPT, *flags, "--names", "words.txt", "--json")


def split_loss(path: str, words: list[str]) -> float:
    """The mean cross-entropy of a saved ensemble over all characters of some words."""
    saved = load(path)
    lengths = np.array([len(word) + 1 for word in words])
    return float(score_words(saved, saved.vocab, words) @ lengths / lengths.sum())


def test_saved_ensemble_has_the_reported_losses(ensemble: Run) -> None:
    ran = ensemble("small")

    assert ran.code == 0
    assert list(ran.json["dev"]) == [ALONE, HALF, MIXED, ENSEMBLE, ENSEMBLE_MIXED]
    saved = load(ran.json["file"])
    picks = [member["picks"] for member in ran.json["members"]]
    assert saved.weights == tuple(n / sum(picks) for n in picks)
    assert saved.counts is not None and saved.counts_weight == ran.json["counts_weight"]
    split = split_words(read_words("words.txt"))
    measured = split_loss(ran.json["file"], split.test)
    assert measured == pytest.approx(ran.json["test"][ENSEMBLE_MIXED], abs=1e-6)
    # Members and weights were chosen on all of dev, so this loss is another one.
    same_words = split_loss(ran.json["file"], split.dev)
    assert f"On these words its loss is {same_words:.4f}" in ran.err
    assert saved.metadata["losses"] == {
        "dev_loss": ran.json["dev"][ENSEMBLE_MIXED],
        "test_loss": ran.json["test"][ENSEMBLE_MIXED],
    }


def test_mixture_beats_the_single_model(ensemble: Run) -> None:
    ran = ensemble("small")

    # After 40 steps the networks are far worse than counts.
    for split in ("dev", "test"):
        losses = ran.json[split]
        assert losses[ENSEMBLE_MIXED] < losses[ALONE] - 0.1
        sentence = ran.json[f"{split}_comparisons"][-1]["sentence"]
        assert sentence.startswith(f"{ENSEMBLE_MIXED} is better than {ALONE} by ")
        assert f"{split.title()} loss: {sentence}; 95% interval, paired by word." in ran.err


def test_counts_are_optional(ensemble: Run) -> None:
    ran = ensemble("small", "--no-counts", "--size", 1)

    assert list(ran.json["dev"]) == list(ran.json["test"]) == [ALONE, ENSEMBLE]
    assert len(ran.json["members"]) == 1 and ran.json["counts_weight"] == 0
    assert load(ran.json["file"]).counts is None
    assert ran.json["test"][ENSEMBLE] == ran.json["test"][ALONE]


def test_members_come_from_several_studies(ensemble: Run) -> None:
    flags: dict[str, Any] = {"trials": 2, "steps": 20, "workers": 2, "device": "cpu", "repeats": 0}
    args = StudyArgs(names=Path("words.txt"), study="other", seed=5, prune=False, **flags)
    assert run_study(args, space, BASE) == 0

    ran = ensemble("small", "other", "small")

    assert ran.json["candidates"] == 5
    assert ran.json["file"] == "mlruns/ensembles/small+other.safetensors"


def test_mlflow_has_the_file_and_the_losses(ensemble: Run) -> None:
    ran = ensemble("small")

    client = connect(None)
    run = client.get_run(ran.json["mlflow_run_id"])
    assert run.data.metrics["dev_loss"] == ran.json["dev"][ENSEMBLE_MIXED]
    assert run.data.metrics["test_loss"] == ran.json["test"][ENSEMBLE_MIXED]
    assert [file.path for file in client.list_artifacts(run.info.run_id)] == ["small.safetensors"]
    version = client.get_model_version_by_alias("makemore-ensemble", "champion")
    assert version.tags["data_sha256"] == load_corpus("words.txt").sha256
    # The same ensemble does not beat itself.
    assert ensemble("small").json["registered"] == {"version": "2", "alias": "challenger"}
    assert ensemble("small", "--no-register").json["registered"] is None


def test_registered_ensemble_predicts_as_the_file(ensemble: Run) -> None:
    saved = load(ensemble("small").json["file"])

    champion = mlflow.pyfunc.load_model("models:/makemore-ensemble@champion")

    asked = pd.DataFrame({"prefix": ["an"], "n": [9], "seed": [3]})
    expected = sample_words(saved, saved.vocab, 9, seed=3, prefix="an")
    assert list(champion.predict(asked).name) == expected
    table = champion.predict(pd.DataFrame({"prefix": ["", "a"]}), params={"probabilities": True})
    contexts = np.zeros((2, saved.block_size), int)
    contexts[1, -1] = saved.vocab.encode("a")[0]
    found = table.drop(columns="prefix").to_numpy()
    np.testing.assert_allclose(found, saved.probabilities(contexts), rtol=1e-5)


def test_generate_and_page_take_an_ensemble(ensemble: Run, run_file: Any) -> None:
    ran = ensemble("small")
    saved = load(ran.json["file"])
    expected = sample_words(saved, saved.vocab, 5, seed=1, prefix="an")

    for source in (ran.json["file"], "models:/makemore-ensemble@champion"):
        flags = ("--prefix", "an", "--n", 5, "--names", "words.txt", "--json")
        generated = run_file("experiments/generate.py", source, *flags)
        assert [row["name"] for row in generated.json["names"]] == expected
        assert all(row["in_data"] is not None for row in generated.json["names"])

    assert run_file("experiments/page.py", ran.json["file"], "-o", "names.html").code == 0
    assert json.dumps(ran.json["dev"][ENSEMBLE_MIXED]) in Path("names.html").read_text()


def test_bad_input_is_refused(ensemble: Run, run_file: Any) -> None:
    assert "--size must be at least 1, but got 0." in ensemble("small", "--size", 0).refusal
    assert "gone" in ensemble("small", "gone").refusal
    other = run_file(SCRIPT, "small").refusal
    assert "study 'small' was made on words.txt, not on the embedded names; give --names" in other
    assert ensemble("small", "-o", "mlruns").refusal.startswith(
        "mlruns: is a directory; give --out"
    )


def test_study_without_models_is_refused(ensemble: Run) -> None:
    flags: dict[str, Any] = {"trials": 1, "steps": 10, "workers": 1, "device": "cpu", "repeats": 0}
    args = StudyArgs(names=Path("words.txt"), study="empty", keep_models=0, prune=False, **flags)
    assert run_study(args, space, BASE) == 0

    assert ensemble("empty").refusal.startswith("empty: no model was kept; search with")
