"""export.py: the exported config, the choice of the trial, and refused input."""

from __future__ import annotations

import os
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
    """Add a trial as the project's own code could have left it."""
    attrs = {"seed": 7, "launch": "x", "summary": summary}
    lr: dict[str, BaseDistribution] = {"lr": FloatDistribution(1e-3, 1.0, log=True)}
    value = summary["dev_loss"] if state == TrialState.COMPLETE else None
    study.add_trial(
        create_trial(
            state=state, value=value, params={"lr": 0.5}, distributions=lr, user_attrs=attrs
        )
    )


def test_best_trial_is_exported_with_origin(workdir: Path, run_file: Any) -> None:
    ran = run_file(EXPORT, "small", "--json")

    study = load_study("small", None)
    best = ranked(study.get_trials())[0]
    assert ran.code == 0
    assert ran.json == {
        "file": str(FILE),
        "study": "small",
        "trial": best.number,
        "dev_loss": dev_loss(best),
        **dict.fromkeys(("confirmed_dev_loss", "confirmed_ci", "confirmed_n")),
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
    assert {"torch", "numba", "optuna", "mlflow"} <= set(origin["versions"])
    assert origin["exported"].startswith("20")


def test_chosen_trial_is_exported_without_passwords(workdir: Path, run_file: Any) -> None:
    study = load_study("small", None)
    worst = ranked(study.get_trials())[-1]
    uri = "http://me:secret@127.0.0.1:9"
    flags = ("--trial", worst.number, "-o", "new/worst.toml", "--tracking-uri", uri)

    ran = run_file(EXPORT, "small", *flags)

    assert read_config("new/worst.toml") == trial_config(study, worst)
    assert f"Trial {worst.number} of study small: dev loss {dev_loss(worst):.4f}" in ran.out
    assert not FILE.exists()
    # The proposed command trains the file that was written, on the words of the study.
    lines = ran.out.splitlines()
    (line,) = (line for line in lines if "experiments/retrain.py new/worst.toml " in line)
    proposed = shlex.split(line.split("new/worst.toml ")[1], comments=True)
    assert proposed[0] == "--names" and Path(proposed[1]).name == "words.txt"
    assert proposed[-4:] == ["--tracking-uri", uri.replace("secret", "***"), "--seeds", "5"]
    # Users publish the output and the file.
    assert "secret" not in Path("new/worst.toml").read_text() + ran.out + ran.err


def test_pruned_trial_can_be_the_best(workdir: Path, run_file: Any) -> None:
    summary = {"reason": "pruned", "dev_loss": 0.5, "best_step": 8}
    add_trial(load_study("small", None), TrialState.PRUNED, **summary)

    ran = run_file(EXPORT, "small")

    assert "Trial 3 of study small: dev loss 0.5000 at step 8." in ran.out
    assert "It is not confirmed: it was pruned" in ran.out
    assert "It was pruned; a retraining continues to step 40." in ran.out
    assert tomllib.loads(FILE.read_text())["origin"]["state"] == "PRUNED"


def test_further_seed_repeats_update_the_file(workdir: Path, run_file: Any) -> None:
    run_file(EXPORT, "small")
    study = load_study("small", None)
    best = ranked(study.get_trials())[0]
    for loss in (2.0, 2.1):
        repeat = study.ask()
        repeat.set_user_attr("repeat_of", best.number)
        repeat.set_user_attr("summary", {"reason": "finished", "dev_loss": loss})
        study.tell(repeat, loss)

    assert f"Exported to {FILE}" in run_file(EXPORT, "small").out
    origin = tomllib.loads(FILE.read_text())["origin"]
    assert (origin["trial"], origin["confirmed_n"]) == (best.number, 2)
    assert origin["confirmed_dev_loss"] == pytest.approx(2.05)
    assert f"Already exported to {FILE}" in run_file(EXPORT, "small").out


def test_only_force_overwrites_another_config(workdir: Path, run_file: Any) -> None:
    run_file(EXPORT, "small")
    before = FILE.read_bytes()

    again = run_file(EXPORT, "small")
    worst = ranked(load_study("small", None).get_trials())[-1].number
    refusal = run_file(EXPORT, "small", "--trial", worst).refusal

    assert again.code == 0 and f"Already exported to {FILE}" in again.out
    assert refusal == (
        f"{FILE}: exists and is not the config of this trial; "
        "give --force to overwrite it, or give --out another path."
    )
    assert FILE.read_bytes() == before
    assert run_file(EXPORT, "small", "--trial", worst, "--force").code == 0
    assert tomllib.loads(FILE.read_text())["origin"]["trial"] == worst
    assert os.listdir(FILE.parent) == [FILE.name]


@pytest.mark.parametrize("raw", [b"[config]\nlr = 0.1\n", b"not TOML at all", b"\xff\xfe"])
def test_foreign_file_is_not_overwritten(workdir: Path, run_file: Any, raw: bytes) -> None:
    FILE.parent.mkdir(parents=True)
    FILE.write_bytes(raw)

    assert "exists and is not the config of this trial" in run_file(EXPORT, "small").refusal
    assert FILE.read_bytes() == raw


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["small", "--trial", "9"], "study 'small' has no trial 9; its trials are 0 to 3."),
        (["small", "--trial", "-1"], "study 'small' has no trial -1; its trials are 0 to 3."),
        (
            ["small", "--trial", "3"],
            "trial 3 of study 'small' has no dev loss (diverged at step 4); choose another trial.",
        ),
        (["none"], "no study 'none' in "),
        (["small", "-o", "words.txt/x"], "words.txt/x: cannot be written ("),
        (["small", "-o", "mlruns"], "mlruns: is a directory; give --out the path of a file."),
        (
            ["small", "--force", "-o", "/dev/null"],
            "/dev/null: is not a regular file; give --out another path.",
        ),
    ],
)
def test_bad_input_is_refused(
    workdir: Path, run_file: Any, flags: list[str], sentence: str
) -> None:
    summary = {"reason": "diverged at step 4", "dev_loss": None}
    add_trial(load_study("small", None), TrialState.PRUNED, **summary)

    assert run_file(EXPORT, *flags).refusal.startswith(sentence)


def test_fifo_is_refused_without_reading_it(workdir: Path, run_file: Any) -> None:
    os.mkfifo("pipe")

    assert "pipe: is not a regular file" in run_file(EXPORT, "small", "-o", "pipe").refusal


def test_study_without_finished_trial_is_refused(workdir: Path, run_file: Any) -> None:
    study = optuna.create_study(study_name="new", storage=open_storage(None, "new"))
    study.ask()

    sentence = "study 'new' has no finished trial yet; let it run until a trial has a dev loss."
    assert run_file(EXPORT, "new").refusal == sentence
