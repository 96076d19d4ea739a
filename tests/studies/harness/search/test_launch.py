"""A launch of a study: its output, its early checks, and the input that it refuses."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import optuna
import pytest

from makemore.config import Config
from makemore.errors import UserError
from studies.harness.cli.args import StudyArgs
from studies.harness.store.text import without_password
from studies.harness.store.trials import dev_loss, ranked
from tests.conftest import ROOT
from tests.studies.conftest import PASSWORD, Launcher, outcomes_of, trials_of


def test_first_line_comes_before_slow_imports() -> None:
    # `run_study` prints its first line before it imports anything else.
    program = """
import sys
import studies.harness.search.launch
print([name for name in ("torch", "mlflow", "pandas", "numba", "scipy") if name in sys.modules])
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_launch_announces_its_trials_and_slots(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    assert launch(trials=3, workers=2) == 0
    assert capsys.readouterr().err.splitlines()[:2] == [
        "Study small: 3 trials of 40 steps.",
        "Training 2 trials at a time on the CPU.",
    ]


def test_bad_flags_are_refused_before_the_first_line(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    for flags in ({"study": "a/b"}, {"keep_models": -1}):
        with pytest.raises(UserError):
            launch(**flags)
    assert capsys.readouterr().err == ""
    assert not Path("mlruns/optuna").exists()


def test_json_names_the_report_and_the_slots(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    launch(trials=3, workers=2, repeats=2, prune=False, json=True)
    outcome = json.loads(capsys.readouterr().out)
    assert Path(outcome["report"]).is_file()
    # Three trials and two seed repeats of each.
    assert (outcome["slots"], outcome["trials"], outcome["ended_now"]) == (2, 3, 9)
    # No slot can train for longer than the launch lasted.
    assert outcome["train_s"] <= outcome["slots"] * outcome["wall_s"]


def test_json_is_the_last_line(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    launch(trials=3, json=True)

    last = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (last["study"], last["trials"]) == ("small", 3)
    assert last["complete"] + last["pruned"] + last["failed"] == 3
    best = ranked(trials_of("small"))[0]
    assert last["best_trial"] == best.number
    assert last["best_dev_loss"] == dev_loss(best)
    assert last["best_params"] == best.params


def test_study_flags_exist() -> None:
    names = "names trials steps workers seed study storage tracking_uri device prune json".split()
    assert set(names) <= set(StudyArgs.__dataclass_fields__)


# ---- other settings for a study that exists


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"steps": 50}, "max_steps was 40 and now is 50"),
        ({"seed": 7}, "seed was 0 and now is 7"),
        ({"base": Config(optimizer="adamw", init="kaiming")}, "optimizer was sgd and now is adamw"),
    ],
)
def test_other_settings_are_refused(launch: Launcher, change: Any, sentence: str) -> None:
    launch(trials=1)
    before = outcomes_of("small")

    with pytest.raises(ValueError, match=sentence):
        launch(trials=2, **change)
    assert outcomes_of("small") == before


def test_other_range_is_refused_by_name(launch: Launcher) -> None:
    def wider(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-4, 1.0, log=True))

    launch(trials=1)
    sentence = r"lr was 0.001 to 1.0 \(log\) and now is 0.0001 to 1.0 \(log\)"
    with pytest.raises(ValueError, match=sentence):
        launch(trials=2, space=wider, first=None)


def test_other_words_are_refused(launch: Launcher, names: Path) -> None:
    launch(trials=1)
    names.write_text(names.read_text() + "zelda\n")

    with pytest.raises(ValueError, match="the file of words has changed"):
        launch(trials=2)


def test_space_that_hides_a_field_is_refused(launch: Launcher) -> None:
    def hiding(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-4, 1.0, log=True), dropout=0.5)

    with pytest.raises(ValueError, match="the search space (sets|changes) dropout"):
        launch(space=hiding, first=None)


# ---- bad flags


@pytest.mark.parametrize("name", ["", "../x", "a/b", "x" * 300, "straße", ".hidden", "a b"])
def test_name_unfit_for_files_is_refused(launch: Launcher, name: str) -> None:
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
def test_bad_flag_is_one_sentence(launch: Launcher, flags: dict[str, Any], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as caught:
        launch(**flags)

    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "content",
    [
        b"not a journal\nat all\n",
        b"my notes without a line end",
        b"garbage\n",
        b'{"model": "important"}',
    ],
)
def test_other_file_is_left_as_it_was(launch: Launcher, workdir: Path, content: bytes) -> None:
    (workdir / "notes.txt").write_bytes(content)

    with pytest.raises(ValueError, match="notes.txt: is not an Optuna journal"):
        launch(storage="notes.txt")
    assert (workdir / "notes.txt").read_bytes() == content


# ---- passwords


@pytest.mark.server
def test_password_is_neither_shown_nor_stored(launch: Launcher, postgres_storage: str) -> None:
    launch(trials=2, storage=postgres_storage)

    stored = b"".join(path.read_bytes() for path in Path("mlruns").rglob("*") if path.is_file())
    assert b"127.0.0.1" in stored
    assert PASSWORD.encode() not in stored
    with pytest.raises(ValueError) as caught:
        launch(trials=2, storage=postgres_storage.replace("tester", "nobody"))
    assert PASSWORD not in str(caught.value)


@pytest.mark.parametrize("password", ["secret", "se@cr/et", "a:b@c"])
def test_password_with_delimiters_is_masked(password: str) -> None:
    url = "postgresql://me:{}@host:5432/x"
    assert without_password(url.format(password)) == url.format("***")
