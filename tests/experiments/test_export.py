"""A trial as a config file: what stands in it, which trial it is, and what is refused."""

from __future__ import annotations

import shlex
import tomllib
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, FloatDistribution
from optuna.trial import TrialState, create_trial

from makemore.config import read_config
from makemore.data import load_corpus
from studies.harness.store.storage import open_storage
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked, trial_config

EXPORT = "experiments/export.py"
FILE = Path("experiments/configs/small.toml")


def add_trial(study: optuna.Study, state: TrialState, **summary: Any) -> None:
    """A trial that this study's own code could have left."""
    attrs = {"seed": 7, "launch": "x", "summary": summary}
    lr: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-3, 1.0, log=True)}
    value = summary["dev_loss"] if state == TrialState.COMPLETE else None
    study.add_trial(
        create_trial(
            state=state, value=value, params={"lr": 0.5}, distributions=lr, user_attrs=attrs
        )
    )


def test_the_best_trial_reads_back_as_its_config_with_its_origin(
    workdir: Path, run_file: Any
) -> None:
    ran = run_file(EXPORT, "small", "--json")
    study = load_study("small", None)
    best = ranked(study.get_trials())[0]
    assert ran.code == 0
    assert ran.json == {
        "file": str(FILE),
        "study": "small",
        "trial": best.number,
        "dev_loss": dev_loss(best),
    }
    assert read_config(FILE) == trial_config(study, best)
    origin = tomllib.loads(FILE.read_text())["origin"]
    expected = {
        "study": "small",
        "trial": best.number,
        "state": "COMPLETE",
        "dev_loss": best.value,
        "best_step": best.user_attrs["summary"]["best_step"],
        "trials": 3,
        "data": "words.txt",
        "data_sha256": load_corpus("words.txt").sha256,
        "command": "python experiments/export.py small",
    }
    assert {key: origin[key] for key in expected} == expected
    assert {"torch", "numba", "optuna", "mlflow"} <= set(origin["versions"]) and origin["exported"][
        :2
    ] == "20"


def test_a_trial_may_be_chosen_and_the_next_command_trains_the_file(
    workdir: Path, run_file: Any
) -> None:
    study = load_study("small", None)
    worst = ranked(study.get_trials())[-1]
    away = "http://me:secret@127.0.0.1:9"
    ran = run_file(
        EXPORT, "small", "--trial", worst.number, "-o", "new/worst.toml", "--tracking-uri", away
    )
    assert read_config("new/worst.toml") == trial_config(study, worst)
    assert f"Trial {worst.number} of study small: dev loss {dev_loss(worst):.4f}" in ran.out
    # Neither the output nor the file, which may be published, shows a password.
    (line,) = (
        line for line in ran.out.splitlines() if "experiments/retrain.py new/worst.toml " in line
    )
    flags = shlex.split(line.split("new/worst.toml ")[1], comments=True)
    assert flags[-4:] == ["--tracking-uri", away.replace("secret", "***"), "--seeds", "5"]
    assert "secret" not in Path("new/worst.toml").read_text() + ran.out + ran.err
    assert not FILE.exists()


def test_a_pruned_trial_may_be_the_best_and_is_said_to_be_pruned(
    workdir: Path, run_file: Any
) -> None:
    add_trial(
        load_study("small", None),
        TrialState.PRUNED,
        reason="pruned",
        dev_loss=0.5,
        best_step=8,
        train_loss=0.4,
    )
    ran = run_file(EXPORT, "small")
    assert "Trial 3 of study small, the best of 4: dev loss 0.5000 at step 8." in ran.out
    assert "It was pruned; trained again, it goes on to step 40." in ran.out
    assert tomllib.loads(FILE.read_text())["origin"]["state"] == "PRUNED"


def test_the_same_trial_is_not_written_twice_and_another_needs_force(
    workdir: Path, run_file: Any
) -> None:
    run_file(EXPORT, "small")
    before = FILE.read_bytes()
    again = run_file(EXPORT, "small")
    assert (
        again.code == 0
        and f"Already exported to {FILE}" in again.out
        and FILE.read_bytes() == before
    )
    worst = ranked(load_study("small", None).get_trials())[-1].number
    sentence = (
        f"{FILE}: exists and holds something else; give --force to write over it, or another -o."
    )
    assert run_file(EXPORT, "small", "--trial", worst).refusal == sentence
    assert FILE.read_bytes() == before
    assert run_file(EXPORT, "small", "--trial", worst, "--force").code == 0
    assert tomllib.loads(FILE.read_text())["origin"]["trial"] == worst


def test_a_file_that_someone_wrote_is_not_written_over(workdir: Path, run_file: Any) -> None:
    FILE.parent.mkdir(parents=True)
    for text in ("[config]\nlr = 0.1\n", "not TOML at all"):
        FILE.write_text(text)
        assert "exists and holds something else" in run_file(EXPORT, "small").refusal
        assert FILE.read_text() == text


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["small", "--trial", "9"], "study 'small' has no trial 9; its trials are 0 to 3."),
        (["small", "--trial", "-1"], "study 'small' has no trial -1; its trials are 0 to 3."),
        (
            ["small", "--trial", "3"],
            "trial 3 of study 'small' has no dev loss (diverged at step 4); choose another.",
        ),
        (
            ["none"],
            "no study 'none' in {here}/mlruns/optuna, which holds small; give one of these names, run the "
            "command from the folder that holds the right mlruns/, or give --storage.",
        ),
        (
            ["small", "-o", "words.txt/x"],
            "words.txt/x: cannot be written (File exists); give another -o.",
        ),
        (["small", "-o", "mlruns"], "mlruns: cannot be written (Is a directory); give another -o."),
    ],
)
def test_bad_input_is_refused_in_a_sentence(
    workdir: Path, run_file: Any, flags: list[str], sentence: str
) -> None:
    add_trial(
        load_study("small", None), TrialState.PRUNED, reason="diverged at step 4", dev_loss=None
    )
    assert run_file(EXPORT, *flags).refusal == sentence.format(here=workdir)


def test_a_study_without_a_finished_trial_is_refused(workdir: Path, run_file: Any) -> None:
    study = optuna.create_study(study_name="new", storage=open_storage(None, "new"))
    study.ask()
    sentence = "study 'new' has no finished trial yet; let it run until one has a dev loss."
    assert run_file(EXPORT, "new").refusal == sentence
