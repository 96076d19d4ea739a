"""Ranges as flags, from the command line to the stores and to the report's advice."""

from __future__ import annotations

import html
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from optuna.distributions import CategoricalDistribution, IntDistribution, json_to_distribution

from makemore.cli import parse_args
from makemore.errors import UserError
from studies.harness.store.study import load_study
from studies.mlp import LECTURE, Args
from tests.conftest import ROOT
from tests.studies.conftest import Launcher, outcomes_of, trials_of

WIDE = ("n_hidden=50:600", "batch_size=64,128")


def space_of(study: str) -> dict[str, Any]:
    stored = load_study(study, None).user_attrs["space"]
    return {name: json_to_distribution(text) for name, text in stored.items()}


def test_ranges_are_searched_and_stored(launch: Launcher) -> None:
    assert launch(trials=6, range=("n_hidden=400:600", "batch_size=64,512")) == 0

    space = space_of("small")
    assert space["n_hidden"] == IntDistribution(400, 600, step=50)
    assert space["batch_size"] == CategoricalDistribution([64, 512])
    trials = trials_of("small")
    assert all(400 <= trial.params["n_hidden"] <= 600 for trial in trials)
    assert {trial.params["batch_size"] for trial in trials} <= {64, 512}
    # The lecture's configuration is outside the ranges, so it is not the first trial.
    assert trials[0].params != LECTURE and "origin" not in trials[0].user_attrs
    attrs = load_study("small", None).user_attrs
    assert attrs["ranges"] == {"n_hidden": "400:600", "batch_size": "64,512"}
    assert parse_args(Args, attrs["flags"]).range == ("n_hidden=400:600", "batch_size=64,512")


def test_first_trial_inside_the_ranges_stays(launch: Launcher) -> None:
    launch(trials=1, range=("n_hidden=50:600",))
    assert trials_of("small")[0].params == LECTURE


@pytest.mark.parametrize("again", [(), WIDE, WIDE[:1]])
def test_resumed_study_keeps_its_ranges(launch: Launcher, again: tuple[str, ...]) -> None:
    launch(trials=2, range=WIDE)
    before = space_of("small")

    assert launch(trials=4, range=again) == 0
    assert space_of("small") == before
    assert len(trials_of("small")) == 4
    assert {trial.params["batch_size"] for trial in trials_of("small")} <= {64, 128}


def test_another_range_is_refused_by_name(launch: Launcher) -> None:
    launch(trials=2, range=WIDE)
    before = outcomes_of("small")

    with pytest.raises(UserError, match="n_hidden was 50 to 600 and now is 50 to 700") as caught:
        launch(trials=4, range=("n_hidden=50:700",))
    assert "batch_size" not in str(caught.value)
    assert outcomes_of("small") == before


def test_range_is_refused_for_a_study_without_it(launch: Launcher) -> None:
    launch(trials=1)
    with pytest.raises(UserError, match="n_hidden was 50 to 300 and now is 50 to 600"):
        launch(trials=2, range=("n_hidden=50:600",))


def test_refusal_names_the_command_of_a_new_study(
    launch: Launcher, run_file: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "argv", [str(ROOT / "studies" / "mlp.py")])
    launch(study="mlp", trials=1)
    launch(study="mlp-2", trials=1)
    given = "--names names.txt --trials 2 --steps 40 --repeats 0 --device cpu --json".split()
    given += ["--range", "n_hidden=50:600"]

    ran = run_file(ROOT / "studies" / "mlp.py", *given)

    assert (ran.code, ran.out) == (2, "")
    refusal = ran.err.splitlines()[-1]
    assert "n_hidden was 50 to 300 and now is 50 to 600" in refusal
    command = refusal.split("start a new study: ")[1]
    script, *flags = shlex.split(command)[1:]
    assert Path(script).resolve() == ROOT / "studies" / "mlp.py"
    assert parse_args(Args, flags) == parse_args(Args, [*given, "--study", "mlp-3"])
    assert run_file(ROOT / "studies" / "mlp.py", *flags).code == 0
    assert space_of("mlp-3")["n_hidden"].high == 600


@pytest.mark.parametrize("given", ["n_hiden=50:600", "lr=1:0.1", "n_hidden=50:610"])
def test_refused_range_creates_nothing(launch: Launcher, workdir: Path, given: str) -> None:
    before = sorted(workdir.rglob("*"))
    with pytest.raises(UserError, match=f"--range {given}: "):
        launch(range=(given,), storage="new/study.journal", tracking_uri="sqlite:///new.db")
    assert sorted(workdir.rglob("*")) == before


# ---- the report's advice


def mlp(workdir: Path, command: str) -> subprocess.CompletedProcess[str]:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PATH": path}
    return subprocess.run(
        command, shell=True, cwd=workdir, env=environment, capture_output=True, text=True
    )


@pytest.mark.slow
def test_widening_command_of_the_report_runs_as_printed(names: Path, workdir: Path) -> None:
    # So few steps need the highest of these rates.
    flags = "--names names.txt --steps 150 --trials 20 --repeats 0 --workers 1 --device cpu "
    flags += "--no-prune --storage my.journal --tracking-uri sqlite:///my.db "
    flags += "--range lr=1e-5:1e-2 --range n_embd=2:8"
    first = mlp(workdir, f"python {ROOT}/studies/mlp.py --study low {flags}")
    assert first.returncode == 0, first.stderr

    page = html.unescape((workdir / "mlruns/reports/low.html").read_text(encoding="utf-8"))
    command = re.search(r"[^<>\n]*--study low-wide [^<>\n]*", page)
    assert command, page
    wider = re.findall(r"--range (\S+)=(\S+)", command[0])
    assert "lr" in dict(wider) and "n_embd=" in command[0]
    second = mlp(workdir, command[0])

    assert second.returncode == 0, second.stderr
    study = load_study("low-wide", "my.journal")
    assert study.user_attrs["ranges"] == dict(wider)
    space = {n: json_to_distribution(t) for n, t in study.user_attrs["space"].items()}
    assert space["lr"].high == 0.03  # type: ignore[attr-defined]
    assert len(study.trials) == 20
    assert study.user_attrs["base"]["max_steps"] == 150
