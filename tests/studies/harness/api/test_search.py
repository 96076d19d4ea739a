"""The function search, in its own processes: results, refusals, interrupts, what it leaves."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from html import unescape
from pathlib import Path
from typing import Any

import pytest

from studies.harness.store.study import load_study
from tests.conftest import ROOT
from tests.studies.harness.api.programs import INTERRUPTED, SETUP

# Everything of the process that a search could change.
STATE = """
import gc, json, logging, os, signal, sys
import mlflow, optuna, torch

def state():
    return {
        "handlers": [str(signal.getsignal(s)) for s in (signal.SIGINT, signal.SIGTERM)],
        "environment": dict(os.environ),
        "garbage": [gc.get_threshold(), gc.get_freeze_count(), gc.isenabled()],
        "mlflow": [mlflow.get_tracking_uri(), mlflow.get_registry_uri(), str(mlflow.active_run())],
        "folder": os.getcwd(),
        "hooks": [str(sys.excepthook), str(sys.stdout), str(sys.stderr), sys.argv],
        "torch": [torch.get_num_threads(), torch.get_rng_state().sum().item()],
        "optuna": optuna.logging.get_verbosity(),
        "logging": [logging.getLogger().level, str(logging.getLogger().handlers)],
    }
"""


def run(program: str, folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", SETUP + program],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=200,
    )


def result(program: str, folder: Path) -> Any:
    """Return the JSON that a program prints last."""
    ran = run(program, folder)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout.splitlines()[-1])


def test_two_studies_leave_the_process_as_it_was(names: Path, workdir: Path) -> None:
    program = f"""{STATE}
before = state()
one = search(space, BASE, name="one", **SMALL)
two = search(space, BASE, name="two", **SMALL)
two.report(), two.export("two.toml"), two.plot.history()
after = state()
found = {{"counts": [len(one.trials), len(two.trials)], "before": before, "after": after}}
print(json.dumps(found))
"""
    found = result(program, workdir)

    assert found["counts"] == [3, 3]
    assert found["after"] == found["before"]


def test_same_call_continues_the_study(names: Path, workdir: Path) -> None:
    program = """
first = search(space, BASE, name="mine", **SMALL).trials
more = search(space, BASE, name="mine", **{**SMALL, "trials": 5}).trials
import json
print(json.dumps([sorted(first.trial), sorted(more.trial)]))
"""
    assert result(program, workdir) == [[0, 1, 2], [0, 1, 2, 3, 4]]


def test_search_equals_the_script(names: Path, workdir: Path, launch: Any) -> None:
    import studies.mlp as script

    program = """
from studies.mlp import BASE as LECTURE_BASE, LECTURE, space as five
search(five, LECTURE_BASE, name="call", first=LECTURE, workers=1, **SMALL)
print(1)
"""
    result(program, workdir)
    launch(study="script", base=script.BASE, trials=3, steps=20, workers=1)

    def losses(name: str) -> list[float | None]:
        return [trial.value for trial in load_study(name, None).trials]

    assert losses("call") == losses("script")


def test_report_proposes_calls_and_no_absent_script(names: Path, workdir: Path) -> None:
    (workdir / "mine.py").write_text(SETUP + 'search(space, BASE, name="mine", **SMALL)\n')
    subprocess.run(
        [sys.executable, "mine.py"],
        cwd=workdir,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        check=True,
        timeout=200,
    )

    page = (workdir / "mlruns/reports/mine.html").read_text()
    calls = [unescape(line) for line in re.findall(r"<code>(search.*?)</code>", page)]
    settings = "steps=20, repeats=0, names='names.txt', trials=32"
    assert f"search(space, base, name='mine', {settings})" in calls
    assert "experiments/export.py mine" in page
    assert "mine.py" not in page and " -c " not in page


def test_own_model_is_searched_and_sampled(names: Path, workdir: Path) -> None:
    program = """
from tests.own_model import OwnConfig, OwnModel
def deep(trial, base):
    return base.replace(lr=trial.suggest_float("lr", 1e-2, 1e-1, log=True),
                        n_layers=trial.suggest_int("n_layers", 1, 2))
own = search(deep, OwnConfig(n_hidden=50), name="own", model=OwnModel, **SMALL)
pages = [study.report() for study in (own, Study.load("own"), Study.load("own", model=OwnModel))]
try:
    Study.load("own", model=torch.nn.Linear)
except UserError as error:
    refusal = str(error)
config = own.best.config
print(json.dumps([[page.missing for page in pages], type(config).__name__, refusal]))
"""
    missing, config, refusal = result(
        "import json, torch\nfrom makemore import UserError\n" + program, workdir
    )

    assert missing[0] == missing[2] == ""
    assert missing[1].endswith("it needs the model's class; give model=OwnModel.")
    assert config == "OwnConfig"
    assert refusal == ("own: is a study of the model OwnModel, not of Linear; give model=OwnModel.")
    page = unescape((workdir / "mlruns/reports/own.html").read_text())
    assert "search(space, base, name='own', model=OwnModel, steps=20" in page


# Calls, and a part of the sentence that refuses them.
REFUSED = {
    "search(space, BASE, name='x', trials=0)": "trials must be at least 1, but got 0.",
    "search(space, BASE, name='x', keep_models=-1)": "keep_models must be at least 0",
    "search(space, BASE, name='a b')": "study name 'a b' cannot be used",
    "search(BASE, space, name='x')": "space must be a function (trial, base) -> Config",
    "search(space, {'lr': 1}, name='x')": "base must be a makemore.Config, but is a dict.",
    "search(space, BASE, name='x', evaluations=0)": "evaluations must be at least 1",
    "search(space, BASE, name='x', ranges={'lr': 3})": "ranges: lr must be (low, high) or a list",
    "search(space, BASE, name='x', ranges={'lrs': (1, 2)})": "did you mean lr.",
    "search(space, BASE, name='x', names='absent.txt')": "absent.txt: no such file",
    "Study.load('absent')": "no study 'absent' in",
}


def test_bad_input_is_a_user_error(tmp_path: Path) -> None:
    program = f"""
import json
from makemore import UserError

sentences = []
for call in {list(REFUSED)}:
    try:
        eval(call)
    except UserError as error:
        sentences.append(str(error))
print(json.dumps(sentences))
"""
    sentences = result(program, tmp_path)

    assert len(sentences) == len(REFUSED)
    for sentence, part in zip(sentences, REFUSED.values(), strict=True):
        assert part in sentence and "--" not in sentence
    assert not (tmp_path / "mlruns" / "optuna").exists()


def test_other_settings_are_refused_by_argument(names: Path, workdir: Path) -> None:
    program = """
from makemore import UserError
search(space, BASE, name="mine", **SMALL)
try:
    search(space, BASE, name="mine", **{**SMALL, "steps": 30})
except UserError as error:
    print(error)
"""
    ran = run(program, workdir)
    assert "max_steps was 20 and now is 30" in ran.stdout
    assert ran.stdout.endswith("or another name to start a new one.\n")


def test_interrupt_returns_what_is_there(names: Path, workdir: Path) -> None:
    ran = run(f"SIGNALS = 1\n{INTERRUPTED}", workdir)

    assert ran.stdout.splitlines() == ["returned True True", "True"], ran.stderr
    assert "of 500 trials; the same call continues the study." in ran.stderr
    states = {trial.state.name for trial in load_study("mine", None).trials}
    assert "RUNNING" not in states


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [0.3, 1.0, 1.7, 2.4, 3.1])
def test_interrupt_at_the_start_does_not_break_the_next_search(
    seconds: float, names: Path, workdir: Path
) -> None:
    program = f"""
import json, os, signal, threading
threading.Timer({seconds}, os.kill, (os.getpid(), signal.SIGINT)).start()
try:
    search(space, BASE, name="mine", **{{**SMALL, "trials": 100}})
except KeyboardInterrupt:
    pass
try:
    study = search(space, BASE, name="mine", **{{**SMALL, "trials": 104}})
except KeyboardInterrupt:  # the first search had ended before
    study = search(space, BASE, name="mine", **{{**SMALL, "trials": 104}})
print(json.dumps(len(study.trials)))
"""
    assert result(program, workdir) == 104


def test_second_interrupt_raises(names: Path, workdir: Path) -> None:
    ran = run(f"SIGNALS = 2\n{INTERRUPTED}", workdir)
    assert ran.stdout.splitlines() == ["raised", "True"], ran.stderr


def test_sigterm_ends_the_process_as_before(names: Path, workdir: Path) -> None:
    program = INTERRUPTED.replace("os.kill(os.getpid(), signal.SIGINT)", "signal.raise_signal(15)")
    ran = run(f"SIGNALS = 1\n{program}", workdir)
    assert ran.returncode == -signal.SIGTERM


def test_import_of_the_package_is_light() -> None:
    program = """
import sys
import makemore, studies
heavy = {"torch", "optuna", "mlflow", "pandas", "numpy", "cyclopts"} & set(sys.modules)
print(sorted(heavy), sorted(set(studies.__all__) - set(dir(studies))))
for package in (makemore, studies):
    for name in package.__all__:
        assert getattr(package, name).__name__ == name
print(sys.excepthook is sys.__excepthook__)
"""
    ran = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert ran.stdout.splitlines() == ["[] []", "True"]
