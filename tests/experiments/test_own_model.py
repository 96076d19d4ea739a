"""A study of a user's model with two more hyperparameters, and every script that follows it."""

from __future__ import annotations

import shutil
import tomllib
from collections.abc import Callable
from contextlib import chdir
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from optuna import Trial

from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.data import load_corpus
from makemore.errors import UserError
from makemore.evaluation import evaluate
from makemore.model import MLP
from makemore.model_class import load_model_class
from makemore.models import class_of, config_class_of
from makemore.sampling import sample_words
from studies.harness.cli.args import StudyArgs
from studies.harness.search.launch import run_study
from studies.harness.store.paths import report_path
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, trial_config
from studies.harness.tracking.connection.connect import connect, default_tracking_uri
from studies.harness.tracking.connection.find import find_experiment, find_runs
from studies.harness.tracking.repairs.doctor import check
from tests.conftest import ROOT, write_small_names
from tests.own_model import CannotBeDeep, FailsWhenDeep, OwnConfig, OwnModel, Transposed

Run = Callable[..., Any]
CLASS = "own_model.py:OwnModel"
OTHER = "own_model.py:Transposed"
BASE = OwnConfig(n_hidden=12, n_embd=4)


def space(trial: Trial, base: OwnConfig) -> OwnConfig:
    return base.replace(
        lr=trial.suggest_float("lr", 0.01, 0.5, log=True),
        n_layers=trial.suggest_int("n_layers", 1, 2),
        momentum=trial.suggest_float("momentum", 0.01, 0.5, log=True),
    )


def launch(base: Config = BASE, model: Any = OwnModel, **flags: Any) -> int:
    defaults = {"study": "own", "trials": 2, "steps": 20, "workers": 2, "device": "cpu"}
    args = StudyArgs(names=Path("words.txt"), prune=False, repeats=0, **{**defaults, **flags})
    return run_study(args, space, base, model=model)


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the study `own`, its exported winner, and the file of the model."""
    folder = tmp_path_factory.mktemp("own")
    with chdir(folder):
        write_small_names(Path("words.txt"))
        assert launch() == 0
        shutil.copy(ROOT / "tests" / "own_model.py", "own_model.py")
    return folder


@pytest.fixture
def own(searched: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current directory: a copy of that folder."""
    shutil.copytree(searched, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", default_tracking_uri())
    return tmp_path


@pytest.fixture
def exported(own: Path, run_file: Run) -> Path:
    ran = run_file("experiments/export.py", "own", "--json")
    assert ran.code == 0
    return Path(ran.json["file"])


def kept_checkpoint() -> tuple[Path, int]:
    """Download a trial's checkpoint; return its path and the number of the trial."""
    client = connect(None)
    run = find_runs(client, find_experiment(client, "own").experiment_id, trial=1)[0]
    return Path(client.download_artifacts(run.info.run_id, "model.safetensors", ".")), 1


# ---- the study


def test_stores_hold_the_further_hyperparameters(own: Path) -> None:
    study = load_study("own", None)
    client = connect(None)
    runs = find_runs(client, find_experiment(client, "own").experiment_id, trial=0)

    assert study.user_attrs["model"].endswith(":OwnModel")
    assert set(study.trials[0].params) == {"lr", "n_layers", "momentum"}
    assert trial_config(study, study.trials[0]).model_dump()["n_layers"] in (1, 2)
    params = runs[0].data.params
    assert params["n_layers"] == str(study.trials[0].params["n_layers"])
    assert params["momentum"] == str(study.trials[0].params["momentum"])
    assert "tanh_saturation" not in runs[0].data.metrics
    experiment = find_experiment(client, "own").experiment_id
    assert check(study, client, experiment, Path("mlruns/outbox/own")) == []


def test_kept_checkpoint_has_the_trials_dev_loss(own: Path) -> None:
    path, number = kept_checkpoint()
    model = load_checkpoint(path, OwnModel).model

    assert class_of(model) is OwnModel
    expected = dev_loss(load_study("own", None).trials[number])
    assert evaluate(model, load_corpus("words.txt").dev) == pytest.approx(expected, rel=1e-6)


def test_study_is_resumed_with_the_same_model_only(own: Path) -> None:
    with pytest.raises(UserError, match="the model was OwnModel and now is Transposed"):
        launch(model=type("Transposed", (OwnModel,), {"__module__": OwnModel.__module__}))
    assert launch(trials=3) == 0
    assert len(load_study("own", None).trials) == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"base": Config()}, "is a Config, but the config_class of OwnModel is OwnConfig"),
        ({"model": None}, "the base config is a OwnConfig, but the MLP has a Config"),
        ({"model": Transposed, "study": "new"}, "it must return logits"),
        ({"ray": "local"}, "--ray trains the MLP only; leave it out for a model of your own"),
    ],
)
def test_bad_model_is_refused_before_a_store_is_made(
    own: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        launch(**changes)
    assert not Path("mlruns/optuna/new.journal").exists()


# ---- the scripts after it


def test_trials_are_compared(own: Path, run_file: Run) -> None:
    ran = run_file("studies/compare.py", "own")

    assert ran.code == 0 and "n_layers" in ran.out and "momentum" in ran.out


def test_report_has_samples_if_the_class_is_named(own: Path, run_file: Run) -> None:
    first = report_path("own").read_text()
    assert "model OwnModel" in first and "studies/report.py own --model" in first

    without = run_file("studies/report.py", "own", "--names", "words.txt")
    assert without.code == 0 and "it needs the model's class; give --model" in without.err
    ran = run_file("studies/report.py", "own", "--model", CLASS, "--names", "words.txt")
    assert (ran.code, ran.err) == (0, "")
    other = run_file("studies/report.py", "own", "--model", OTHER, "--names", "words.txt")
    assert "own: is a study of the model OwnModel, not of Transposed; give" in other.refusal


def test_exported_config_is_retrained_bit_for_bit(exported: Path, run_file: Run) -> None:
    tables = tomllib.loads(exported.read_text())
    assert tables["config"]["n_layers"] in (1, 2)
    assert tables["origin"]["model"].endswith(":OwnModel")

    flags = (exported, "--names", "words.txt", "--device", "cpu", "--json")
    refused = run_file("experiments/retrain.py", *flags).refusal
    assert f"{exported}: is a config of the model OwnModel; give --model " in refused
    ran = run_file("experiments/retrain.py", *flags, "--model", CLASS)
    assert ran.code == 0 and ran.json["reproduced"] is True
    assert "--model own_model.py:OwnModel --n 20" in ran.err


def test_registered_model_generates_and_is_served(exported: Path, run_file: Run) -> None:
    flags = ("--names", "words.txt", "--device", "cpu", "--json", "--model", CLASS)
    retrained = run_file("experiments/retrain.py", exported, *flags)
    checkpoint = load_checkpoint(retrained.json["checkpoint"], OwnModel)
    names = sample_words(checkpoint.model, checkpoint.vocab, 5, seed=1)

    assert "of makemore-ownmodel, champion" in retrained.err
    for source in (retrained.json["checkpoint"], "models:/makemore-ownmodel@champion"):
        shown = ("--n", 5, "--json", "--names", "words.txt")
        ran = run_file("experiments/generate.py", source, *shown, "--model", CLASS)
        assert [row["name"] for row in ran.json["names"]] == names
        refused = run_file("experiments/generate.py", source, *shown).refusal
        assert "is a checkpoint of the model OwnModel; give --model own_model.py:Own" in refused

    Path("own_model.py").unlink()  # the registered model has a copy
    served = mlflow.pyfunc.load_model("models:/makemore-ownmodel@champion")
    answer = served.predict(pd.DataFrame({"prefix": [""], "n": [5], "seed": [1]}))
    assert list(answer.name) == names


def test_ensemble_teaches_an_own_model(exported: Path, run_file: Run) -> None:
    corpus = load_corpus("words.txt")
    mlp = MLP(Config(n_hidden=8), len(corpus.vocab))
    words = {"source": corpus.source, "sha256": corpus.sha256}
    teacher = save_checkpoint("mlp.safetensors", mlp, corpus.vocab, corpus=words)

    flags = ("--names", "words.txt", "--device", "cpu", "--seeds", 1, "--json", "--no-register")
    ran = run_file("experiments/distil.py", teacher, exported, *flags, "--model", CLASS)

    assert ran.code == 0 and ran.json["teacher"]["source"] == "mlp.safetensors"
    assert class_of(load_checkpoint(ran.json["checkpoint"], OwnModel).model) is OwnModel


def test_scripts_for_the_mlp_say_so(own: Path, run_file: Run) -> None:
    path, _ = kept_checkpoint()

    assert "pages compute the MLP only" in run_file("experiments/page.py", path).refusal
    assert "ensembles have MLPs only" in run_file("experiments/ensemble.py", "own").refusal
    Path("mlp.toml").write_text(Config(max_steps=10).to_toml())
    distil = run_file("experiments/distil.py", path, "mlp.toml", "--names", "words.txt")
    assert "cannot teach; give an MLP or an ensemble of MLPs" in distil.refusal


# ---- mistakes in a model


@pytest.mark.parametrize(
    ("model", "error"),
    [
        (FailsWhenDeep, "FailsWhenDeep raised RuntimeError: too deep (own_model.py, line "),
        (CannotBeDeep, "CannotBeDeep raised ValueError: cannot be deep (own_model.py, line "),
    ],
)
def test_error_of_the_model_ends_its_trial(own: Path, model: Any, error: str) -> None:
    args = StudyArgs(
        study="bad", names=Path("words.txt"), trials=3, steps=20, workers=1, prune=False, repeats=0
    )
    deep = {"lr": 0.1, "n_layers": 2, "momentum": 0.1}
    assert run_study(args, space, BASE, model=model, first=deep) == 0

    trials = load_study("bad", None).get_trials()
    states = {trial.state.name for trial in trials if trial.params["n_layers"] == 2}
    assert states == {"FAIL"}
    reasons = [t.user_attrs["summary"]["reason"] for t in trials if t.state.name == "FAIL"]
    assert all(reason.startswith(f"engine failed: {error}") for reason in reasons)
    assert any(trial.state.name == "COMPLETE" for trial in trials)


def test_changed_code_is_refused(own: Path) -> None:
    assert launch(study="code") == 0
    text = Path("own_model.py").read_text()
    Path("changed.py").write_text(text.replace("nn.Tanh()", "nn.ReLU()"))
    changed = load_model_class("changed.py:OwnModel")

    with pytest.raises(UserError, match="the code of OwnModel has changed"):
        run_study(
            StudyArgs(study="code", names=Path("words.txt"), trials=3, steps=20, prune=False),
            space,
            config_class_of(changed)(n_hidden=12, n_embd=4),
            model=changed,
        )


def test_first_trial_outside_the_space_is_refused(own: Path) -> None:
    args = StudyArgs(study="first", names=Path("words.txt"), trials=2, steps=20, repeats=0)
    first = {"lr": 100.0, "n_layers": 1, "momentum": 0.1}

    with pytest.raises(UserError, match="the first trial has lr=100.0, outside the range"):
        run_study(args, space, BASE, model=OwnModel, first=first)


def test_field_with_the_name_of_a_column_is_refused(own: Path) -> None:
    class Timed(Config):
        seconds: float = 1.0

    class Net(OwnModel):
        config_class = Timed  # type: ignore[assignment]

    with pytest.raises(UserError, match="a config field cannot be called seconds"):
        launch(Timed(), Net, study="named")
