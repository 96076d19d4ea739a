"""Script that shows the trials of a study or compares studies, as a table, CSV and JSON."""

from __future__ import annotations

import io
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from rich.console import Console

from makemore.config import Config
from studies.harness.cli.terminal import trials_table
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, ranked
from tests.conftest import ROOT

COMPARE = "studies/compare.py"
PARAMS = ["block_size", "batch_size", "lr", "n_embd", "n_hidden"]
COLUMNS = ["trial", "dev_loss", *PARAMS, "best_step", "n_params", "state"]


def rows_of(out: str) -> list[list[str]]:
    """Return the cells of each row of the printed table."""
    return [line.split() for line in out.splitlines() if re.match(r"\s*\d+  ", line)]


def test_help_loads_no_heavy_library() -> None:
    program = """
import runpy, sys
sys.argv = ["studies/compare.py", "--help"]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    print(sorted({"torch", "mlflow", "optuna", "pandas", "matplotlib"} & set(sys.modules)))
"""
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)

    lines = done.stdout.splitlines()
    assert lines[0].startswith("Usage: python studies/compare.py")
    assert lines[-1] == "[]"


def test_trials_are_ranked_with_all_columns(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=6, prune=False)
    ran = run_file(COMPARE, "small")
    assert ran.code == 0
    best = ranked(load_study("small", None).get_trials())
    rows = rows_of(ran.out)
    assert [int(row[0]) for row in rows] == [trial.number for trial in best]
    assert [row[1] for row in rows] == [f"{dev_loss(trial):.4f}" for trial in best]
    # Without a terminal no heading is cut or wrapped.
    heading = next(line for line in ran.out.splitlines() if line.startswith("trial"))
    assert sorted(heading.split()) == sorted(COLUMNS)
    assert "6 complete" in ran.out.splitlines()


def test_each_state_has_its_reason(launch: Callable[..., int], run_file: Any) -> None:
    def explode(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e3, 1e4, log=True))

    launch(space=explode, base=Config(init="lecture"), first=None, trials=2)
    study = load_study("small", None)
    for state in (TrialState.FAIL, TrialState.FAIL, TrialState.COMPLETE):
        trial = study.ask()
        trial.suggest_float("lr", 1e3, 1e4, log=True)
        if state == TrialState.COMPLETE:
            trial.set_user_attr(
                "summary",
                {"reason": "finished", "dev_loss": 2.5, "best_step": 7},
            )
        elif trial.number == 2:
            trial.set_user_attr("summary", {"reason": "engine failed: [red]no[/red] memory"})
        else:
            trial.set_user_attr("replaced", "the same parameters as trial 0")
        study.tell(trial, 2.5 if state == TrialState.COMPLETE else None, state=state)
    study.ask()
    ran = run_file(COMPARE, "small", "--csv", "all.csv")
    lines = {line.split()[0]: line for line in ran.out.splitlines() if re.match(r"\s*\d+  ", line)}
    assert re.search(r"pruned: diverged at step \d+$", lines["0"].rstrip())
    # Brackets in an engine's error are printed, not taken as markup.
    assert lines["2"].rstrip().endswith("failed: engine failed: [red]no[/red] memory")
    assert lines["4"].split()[1] == "2.5000" and lines["4"].rstrip().endswith("complete")
    assert lines["5"].rstrip().endswith("running")
    # A replaced trial is only in the CSV file, and is not counted.
    assert "3" not in lines and list(pd.read_csv("all.csv").trial.sort_values()) == list(range(6))
    counts = next(line for line in ran.out.splitlines() if "2 pruned" in line)
    assert set(counts.split(", ")) == {"2 pruned", "1 failed", "1 complete", "1 running"}


def test_top_limits_the_table_but_not_the_csv(
    launch: Callable[..., int], run_file: Any, workdir: Path
) -> None:
    launch(trials=5, prune=False)
    ran = run_file(COMPARE, "small", "--top", 2, "--csv", "new/trials.csv", "--json")
    best = ranked(load_study("small", None).get_trials())
    frame = pd.read_csv(workdir / "new" / "trials.csv")
    assert list(frame.trial) == [trial.number for trial in best]
    # Losses and parameters are written to the last digit.
    assert list(frame.dev_loss) == [dev_loss(trial) for trial in best]
    assert list(frame.lr) == [trial.params["lr"] for trial in best]
    assert (ran.json["study"], ran.json["states"]) == ("small", {"complete": 5})
    assert [row["trial"] for row in ran.json["trials"]] == [trial.number for trial in best[:2]]
    assert [row["dev_loss"] for row in ran.json["trials"]] == [
        dev_loss(trial) for trial in best[:2]
    ]
    # With --json the table is on standard error.
    assert len(rows_of(ran.err)) == 2 and len(ran.out.splitlines()) == 1


def test_narrow_terminal_wraps_headings_and_keeps_numbers(launch: Callable[..., int]) -> None:
    launch(trials=3, prune=False)
    trials = load_study("small", None).get_trials()
    screen = io.StringIO()
    Console(file=screen, width=80, force_terminal=True, no_color=True).print(
        trials_table(trials, 80)
    )
    text = re.sub(r"\x1b\[[0-9;]*m", "", screen.getvalue())
    assert max(map(len, text.splitlines())) <= 80
    for trial in trials:
        row = next(
            line.split() for line in text.splitlines() if line.split()[:1] == [str(trial.number)]
        )
        lr = trial.params["lr"]
        assert row[1] == f"{dev_loss(trial):.4f}" and f"{lr:.4g}" in row and row[-1] == "complete"


def test_winner_is_named_and_repeats_are_not_listed(
    launch: Callable[..., int], run_file: Any
) -> None:
    launch(trials=2, prune=False)
    study = load_study("small", None)
    second = ranked(study.get_trials())[1]
    for loss in (2.0, 2.1):
        repeat = study.ask()
        repeat.set_user_attr("repeat_of", second.number)
        repeat.set_user_attr("summary", {"reason": "finished", "dev_loss": loss})
        study.tell(repeat, loss)

    ran = run_file(COMPARE, "small", "--json")

    assert ran.json["states"] == {"complete": 2}
    assert len(ran.json["trials"]) == len(rows_of(ran.err)) == 2
    # Only the second best has repeats; its mean is far below the first one's loss.
    assert (ran.json["best_trial"], ran.json["best_n"]) == (second.number, 2)
    assert ran.json["best_mean"] == pytest.approx(2.05)
    assert ran.json["selected_dev_loss"] == dev_loss(second)
    assert ran.json["trials"][0]["trial"] == second.number
    assert f"Winner: trial {second.number}, dev loss 2.0500 ±" in ran.err


def test_study_without_trials_is_reported(workdir: Path, run_file: Any) -> None:
    Path("mlruns/optuna").mkdir()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend("mlruns/optuna/new.journal")
    )
    optuna.create_study(study_name="new", storage=storage)
    ran = run_file(COMPARE, "new", "--json")
    assert ran.code == 0
    assert (ran.json["study"], ran.json["states"], ran.json["trials"]) == ("new", {}, [])
    assert ran.json["best_trial"] is None
    assert ran.err.strip() == "Study new has no trials yet."


def test_several_studies_are_compared(
    launch: Callable[..., int], run_file: Any, workdir: Path
) -> None:
    launch(study="long", trials=3, steps=80, prune=False)
    launch(study="short", trials=2, prune=False)
    ran = run_file(COMPARE, "long", "short", "--top", 10, "--csv", "both.csv", "--json")
    assert ran.code == 0
    assert list(ran.json["studies"]) == ["long", "short"]
    assert ran.json["studies"]["long"]["training steps"] == "240"
    frame = pd.read_csv(workdir / "both.csv", index_col="measure", dtype=str)
    assert list(frame.loc["trials"]) == ["3", "2"]
    markdown = run_file(COMPARE, "long", "short", "--markdown")
    assert markdown.out.splitlines()[0] == "| measure | long | short |"


def test_markdown_shows_the_best_trials(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=2, prune=False)
    ran = run_file(COMPARE, "small", "--top", 1, "--markdown")
    assert ran.code == 0
    rows = [line for line in ran.out.splitlines() if line.startswith("|")]
    assert rows[0].startswith("| trial | state |")
    assert len(rows) == 3


NO_STUDY = (
    "no study 'none' in {folder}/mlruns/optuna, which holds small; give one of these names, run "
    "the "
    "command from the folder that holds the right mlruns/, or give --storage."
)
REFUSALS = {
    (): "STUDIES is missing; see --help.",
    ("none",): NO_STUDY,
    ("small", "none"): NO_STUDY,
    ("small", "--top", "0"): "--top must be at least 1, but got 0.",
    ("small", "--csv", "/dev/null"): "/dev/null: is not a regular file; give --csv another path.",
    ("small", "--csv", "names.txt/x"): "names.txt/x: cannot be written ("
    "{folder}/names.txt is not a directory); give --csv another path.",
}


def test_bad_input_is_refused_in_one_sentence(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=1)
    expected = {flags: text.format(folder=Path.cwd()) for flags, text in REFUSALS.items()}
    assert {flags: run_file(COMPARE, *flags).refusal for flags in REFUSALS} == expected
