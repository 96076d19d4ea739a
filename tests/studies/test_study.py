"""A study from launch to end on real stores: what Optuna and MLflow hold afterwards, and what the next launch finds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from makemore.config import Config, read_config
from studies.harness.cli.args import StudyArgs
from studies.harness.search.queue import _IgnoresFollowUps
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked, trial_config
from studies.harness.tracking.client import connect, find_runs, get_experiment
from studies.harness.tracking.doctor import check

Launcher = Callable[..., int]
LR: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
}


def runs_of(study: str) -> list[Any]:
    client = connect(None)
    return find_runs(client, get_experiment(client, study))


def violations(study: str) -> list[str]:
    client = connect(None)
    found = check(
        load_study(study, None), client, get_experiment(client, study), MLRUNS / "outbox" / study
    )
    return [f"{v.kind}: {v.detail}" for v in found]


def outcomes(study: str) -> list[tuple[Any, ...]]:
    trials = load_study(study, None).get_trials(deepcopy=False)
    return [(t.number, t.params, t.state, dev_loss(t), t.intermediate_values) for t in trials]


# ---- the two stores agree


def test_each_trial_has_one_finished_run_of_the_same_state_params_and_loss(
    launch: Launcher,
) -> None:
    assert launch(trials=6, prune=False) == 0
    study, client = load_study("small", None), connect(None)
    runs = {
        int(run.data.tags["trial"]): run for run in runs_of("small") if "trial" in run.data.tags
    }
    assert sorted(runs) == list(range(6))
    for trial in study.get_trials():
        run = runs[trial.number]
        assert (run.info.status, run.data.tags["state"]) == (
            "FINISHED",
            trial.state.name == "COMPLETE" and "COMPLETE",
        )
        # The value that a table of MLflow shows is the trial's value in Optuna: that of the checkpoint.
        assert run.data.metrics["dev_loss"] == trial.value == dev_loss(trial)
        history = sorted(
            client.get_metric_history(run.info.run_id, "dev_loss"),
            key=lambda m: (m.step, m.timestamp),
        )
        by_step = {m.step: m.value for m in reversed(history)}
        assert by_step == trial.intermediate_values
        assert {key: run.data.params[key] for key in trial.params} == {
            k: str(v) for k, v in trial.params.items()
        }
        artifacts = {item.path for item in client.list_artifacts(run.info.run_id)}
        assert artifacts == {"config.toml", "model.safetensors", "samples.txt"}
        path = client.download_artifacts(run.info.run_id, "config.toml")
        assert read_config(path) == trial_config(study, trial)
    assert violations("small") == []
    assert not list((MLRUNS / "outbox" / "small").iterdir())


def test_the_parent_run_carries_the_history_and_the_table(launch: Launcher) -> None:
    launch(trials=5)
    parent = next(run for run in runs_of("small") if "trial" not in run.data.tags)
    client = connect(None)
    best = client.get_metric_history(parent.info.run_id, "best_dev_loss")
    values = [m.value for m in sorted(best, key=lambda m: (m.timestamp, -m.value))]
    # The best so far never rises.
    assert values == sorted(values, reverse=True)
    assert min(values) == dev_loss(ranked(load_study("small", None).get_trials())[0])
    assert parent.info.status == "FINISHED"
    files = {item.path for item in client.list_artifacts(parent.info.run_id)}
    assert files == {
        "trials.csv",
        "report.html",
        "history.png",
        "importances.png",
        "parallel.png",
        "slices.png",
    }
    assert (
        (MLRUNS / "reports" / "small.html")
        .read_text(encoding="utf-8")
        .startswith("<!doctype html>")
    )
    assert parent.data.tags["mlflow.note.content"].startswith("## small: dev loss")
    # The views that the UI is opened with come with the experiment.
    tags = client.get_experiment(parent.info.experiment_id).tags
    assert json.loads(tags["mlflow.sharedViewState.trials"])["name"] == "Trials by dev loss"
    children = [run for run in runs_of("small") if "trial" in run.data.tags]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}


def test_json_is_the_last_line(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    launch(trials=3, json=True)
    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert last["study"] == "small" and last["trials"] == 3
    assert last["complete"] + last["pruned"] + last["failed"] == 3
    best = ranked(load_study("small", None).get_trials())[0]
    assert (last["best_trial"], last["best_dev_loss"], last["best_params"]) == (
        best.number,
        dev_loss(best),
        best.params,
    )


def test_the_lecture_is_tried_first(launch: Launcher) -> None:
    launch(trials=2)
    first = load_study("small", None).get_trials()[0]
    assert first.params == {
        "lr": 0.1,
        "block_size": 3,
        "n_embd": 10,
        "n_hidden": 200,
        "batch_size": 32,
    }


# ---- pruning and divergence are outcomes


def test_a_pruned_run_is_killed_and_says_why(launch: Launcher) -> None:
    launch(trials=14)
    pruned = load_study("small", None).get_trials(states=(TrialState.PRUNED,))
    assert pruned
    runs = {
        int(run.data.tags["trial"]): run for run in runs_of("small") if "trial" in run.data.tags
    }
    for trial in pruned:
        run = runs[trial.number]
        assert (run.info.status, run.data.tags["state"]) == ("KILLED", "PRUNED")
        assert run.data.tags["reason"] in ("pruned",) or run.data.tags["reason"].startswith(
            "diverged at step"
        )
        assert run.data.metrics["dev_loss"] == dev_loss(trial)
    assert violations("small") == []


def test_a_diverged_trial_is_pruned_with_its_step_and_nothing_infinite_is_stored(
    launch: Launcher,
) -> None:
    def explode(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e3, 1e4, log=True))

    assert launch(space=explode, base=Config(init="lecture"), first=None, trials=2) == 0
    for trial in load_study("small", None).get_trials():
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["summary"]["reason"].startswith("diverged at step")
    for run in runs_of("small"):
        assert all(abs(value) < 1e300 for value in run.data.metrics.values())
    assert violations("small") == []


# ---- resuming


def test_trials_is_a_total(launch: Launcher) -> None:
    launch(trials=3)
    before = outcomes("small")
    launch(trials=3)
    assert outcomes("small") == before
    launch(trials=5)
    assert outcomes("small")[:3] == before and len(outcomes("small")) == 5


def test_with_one_worker_the_seed_decides_the_study(launch: Launcher) -> None:
    launch(study="a", trials=13, workers=1)
    launch(study="b", trials=13, workers=1)
    launch(study="c", trials=13, workers=1, seed=1)
    assert outcomes("a") == outcomes("b")
    assert [row[1] for row in outcomes("a")[1:]] != [row[1] for row in outcomes("c")[1:]]


def test_a_study_in_two_launches_is_the_study_in_one(launch: Launcher) -> None:
    launch(study="whole", trials=14, workers=1)
    launch(study="parts", trials=12, workers=1)
    launch(study="parts", trials=14, workers=1)
    assert outcomes("whole") == outcomes("parts")


def test_a_trial_does_not_depend_on_the_number_of_workers(launch: Launcher) -> None:
    launch(study="one", trials=6, workers=1, prune=False)
    launch(study="two", trials=6, workers=2, prune=False)
    # The first ten proposals are random, and a trial's seed comes from its number.
    assert outcomes("one") == outcomes("two")


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 50}, "max_steps was 40 and now is 50"),
        ({"seed": 7}, "seed was 0 and now is 7"),
        ({"base": Config(optimizer="adamw", init="kaiming")}, "optimizer was sgd and now is adamw"),
    ],
)
def test_other_settings_for_a_study_that_exists_are_refused(
    launch: Launcher, change: Any, sentence: str
) -> None:
    launch(trials=1)
    before = outcomes("small")
    with pytest.raises(ValueError, match=sentence):
        launch(trials=2, **change)
    assert outcomes("small") == before


def test_another_range_is_refused_by_its_name(launch: Launcher) -> None:
    def wider(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-4, 1.0, log=True))

    launch(trials=1)
    with pytest.raises(
        ValueError, match=r"lr was 0.001 to 1.0 \(log\) and now is 0.0001 to 1.0 \(log\)"
    ):
        launch(trials=2, space=wider, first=None)


def test_a_space_that_hides_a_field_is_refused(launch: Launcher) -> None:
    def hiding(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-4, 1.0, log=True), dropout=0.5)

    with pytest.raises(ValueError, match="the search space changes dropout without suggesting it"):
        launch(space=hiding, first=None)


def test_other_words_are_refused(launch: Launcher, names: Path) -> None:
    launch(trials=1)
    names.write_text(names.read_text() + "zelda\n")
    with pytest.raises(ValueError, match="the file of words has changed"):
        launch(trials=2)


# ---- checkpoints


def test_only_the_best_trials_keep_their_checkpoint(launch: Launcher) -> None:
    launch(trials=8, keep_models=2, prune=False)
    client, best = (
        connect(None),
        [t.number for t in ranked(load_study("small", None).get_trials())[:2]],
    )
    with_model = set()
    for run in runs_of("small"):
        if "model.safetensors" in {item.path for item in client.list_artifacts(run.info.run_id)}:
            with_model.add(int(run.data.tags["trial"]))
    assert with_model == set(best)


# ---- bad input


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 300, "straße", ".hidden", "a b"])
def test_a_study_name_that_is_no_file_name_is_refused(launch: Launcher, name: str) -> None:
    with pytest.raises(ValueError, match="cannot be used; take 1 to 100 of the characters"):
        launch(study=name)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ({"trials": 0}, "--trials must be at least 1, but got 0"),
        ({"workers": 0}, "--workers must be at least 1, but got 0"),
        ({"steps": -5}, "--steps must be at least 1, but got -5"),
        ({"seed": -1}, "--seed must be at least 0, but got -1"),
        ({"device": "tpu"}, "device 'tpu' is unknown"),
        ({"device": "cuda:9"}, "device 'cuda:9' is absent"),
        ({"tracking_uri": "mlruns"}, "has no scheme"),
        ({"tracking_uri": "http://127.0.0.1:9"}, "MLflow at http://127.0.0.1:9 does not answer"),
        ({"storage": "."}, "is a directory"),
        (
            {"storage": "postgresql://u:secret@127.0.0.1:9/x"},
            r"storage postgresql://u:\*\*\*@127.0.0.1:9/x cannot be opened",
        ),
        ({"names": Path("absent.txt")}, "absent.txt: no such file"),
    ],
)
def test_bad_flags_are_one_sentence(launch: Launcher, flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        launch(**flags)
    assert "\n" not in str(caught.value) and "secret" not in str(caught.value)


def test_a_file_that_is_no_journal_is_refused(launch: Launcher, workdir: Path) -> None:
    (workdir / "notes.txt").write_text("not a journal\nat all\n")
    with pytest.raises(ValueError, match="notes.txt: is not an Optuna journal"):
        launch(storage="notes.txt")
    # It is left as it was.
    assert (workdir / "notes.txt").read_text() == "not a journal\nat all\n"


def test_the_flags_of_a_study_script_have_a_meaning() -> None:
    assert set(StudyArgs.__dataclass_fields__) >= {
        *(
            "names",
            "trials",
            "steps",
            "workers",
            "seed",
            "study",
            "storage",
            "tracking_uri",
            "device",
            "prune",
            "json",
        )
    }


# ---- seed repeats


def test_the_best_trials_are_repeated_with_other_seeds_beyond_the_total(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(trials=12, repeats=2, json=True, prune=False) == 0
    trials = load_study("small", None).get_trials()
    repeats = [t for t in trials if "repeat_of" in t.user_attrs]
    best = ranked(trials)[:3]
    assert sorted(t.user_attrs["repeat_of"] for t in repeats) == sorted(
        [t.number for t in best] * 2
    )
    for trial in repeats:
        original = trials[trial.user_attrs["repeat_of"]]
        assert trial.params == original.params and trial.state == TrialState.COMPLETE
        assert trial.user_attrs["seed"] != original.user_attrs["seed"]
    assert len({t.user_attrs["seed"] for t in trials}) == len(trials)
    # They are neither counted nor ranked, and their runs stand below the run that they repeat.
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["trials"] == 12
    runs = {
        int(run.data.tags["trial"]): run for run in runs_of("small") if "trial" in run.data.tags
    }
    for trial in repeats:
        parent = runs[trial.user_attrs["repeat_of"]]
        assert runs[trial.number].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert violations("small") == []


def test_the_sampler_does_not_see_repeats() -> None:
    def proposal(repeats: int) -> dict[str, Any]:
        study = optuna.create_study(sampler=_IgnoresFollowUps(optuna.samplers.TPESampler(seed=1)))
        for i in range(12):
            study.add_trial(
                optuna.create_trial(
                    params={"lr": 10 ** (-i / 4)}, distributions=LR, value=abs(i - 5.0)
                )
            )
        for _ in range(repeats):
            marked = {"repeat_of": 11}
            study.add_trial(
                optuna.create_trial(
                    params={"lr": 1e-3}, distributions=LR, value=-1.0, user_attrs=marked
                )
            )
        trial = study.ask()
        trial.suggest_float("lr", 1e-3, 1.0, log=True)
        return trial.params

    assert proposal(repeats=8) == proposal(repeats=0)


def test_a_study_of_three_values_ends_when_they_are_trained(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    def three(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(n_hidden=trial.suggest_int("n_hidden", 10, 30, step=10))

    assert launch(space=three, first=None, trials=5) == 0
    assert "The search space holds nothing new" in capsys.readouterr().err
    trials = load_study("small", None).get_trials()
    assert sorted(t.params["n_hidden"] for t in trials if t.state == TrialState.COMPLETE) == [
        10,
        20,
        30,
    ]
