"""The table of a study's trials: in the terminal, on a pipe, as CSV and as JSON."""

from __future__ import annotations

import io
import re
import statistics
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

COMPARE = "studies/compare.py"
COLUMNS = "trial dev_loss train_loss block_size batch_size lr n_embd n_hidden best_step n_params state".split()


def rows_of(out: str) -> list[list[str]]:
    """The cells of the printed table's rows."""
    return [line.split() for line in out.splitlines() if re.match(r"\s*\d+  ", line)]


def test_the_trials_stand_by_dev_loss_with_their_numbers_whole(
    launch: Callable[..., int], run_file: Any
) -> None:
    launch(trials=6, prune=False)
    ran = run_file(COMPARE, "small")
    assert ran.code == 0
    best = ranked(load_study("small", None).get_trials())
    rows = rows_of(ran.out)
    assert [int(row[0]) for row in rows] == [trial.number for trial in best]
    assert [row[1] for row in rows] == [f"{dev_loss(trial):.4f}" for trial in best]
    # Nothing is cut where there is no terminal: every heading is whole, on one line.
    heading = next(line for line in ran.out.splitlines() if line.startswith("trial"))
    assert sorted(heading.split()) == sorted(COLUMNS)
    assert "6 complete" in ran.out.splitlines()


def test_every_state_shows_its_reason(launch: Callable[..., int], run_file: Any) -> None:
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
                {"reason": "finished", "dev_loss": 2.5, "train_loss": 2.25, "best_step": 7},
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
    # What an engine says is shown as it is: brackets are no markup.
    assert lines["2"].rstrip().endswith("failed: engine failed: [red]no[/red] memory")
    assert lines["4"].split()[1:3] == ["2.5000", "2.2500"] and lines["4"].rstrip().endswith(
        "complete"
    )
    assert lines["5"].rstrip().endswith("running")
    # What another trial replaced is in the CSV alone, and is not counted.
    assert "3" not in lines and list(pd.read_csv("all.csv").trial.sort_values()) == list(range(6))
    counts = next(line for line in ran.out.splitlines() if "2 pruned" in line)
    assert set(counts.split(", ")) == {"2 pruned", "1 failed", "1 complete", "1 running"}


def test_top_shortens_the_table_and_not_the_csv(
    launch: Callable[..., int], run_file: Any, workdir: Path
) -> None:
    launch(trials=5, prune=False)
    ran = run_file(COMPARE, "small", "--top", 2, "--csv", "new/trials.csv", "--json")
    best = ranked(load_study("small", None).get_trials())
    frame = pd.read_csv(workdir / "new" / "trials.csv")
    assert list(frame.trial) == [trial.number for trial in best]
    # Losses and parameters are stored to the last digit.
    assert list(frame.dev_loss) == [dev_loss(trial) for trial in best]
    assert list(frame.lr) == [trial.params["lr"] for trial in best]
    assert (ran.json["study"], ran.json["states"]) == ("small", {"complete": 5})
    assert [row["trial"] for row in ran.json["trials"]] == [trial.number for trial in best[:2]]
    assert [row["dev_loss"] for row in ran.json["trials"]] == [
        dev_loss(trial) for trial in best[:2]
    ]
    # With --json the table is on standard error.
    assert len(rows_of(ran.err)) == 2 and len(ran.out.splitlines()) == 1


def test_a_narrow_terminal_folds_headings_and_keeps_numbers(launch: Callable[..., int]) -> None:
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


def test_seed_repeats_become_one_line_a_trial(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=2, prune=False)
    study = load_study("small", None)
    best, losses = ranked(study.get_trials())[0], [2.0, 3.0]
    for loss in losses:
        repeat = study.ask()
        repeat.set_user_attr("repeat_of", best.number)
        repeat.set_user_attr("summary", {"reason": "finished", "dev_loss": loss})
        study.tell(repeat, loss)
    ran = run_file(COMPARE, "small", "--json")
    assert (ran.json["states"], len(ran.json["trials"]), len(rows_of(ran.err))) == (
        {"complete": 2},
        2,
        2,
    )
    mean, sd = statistics.fmean(losses), statistics.stdev(losses)
    (row,) = (row for row in ran.json["repeats"] if row["trial"] == best.number)
    assert row == {
        "trial": best.number,
        "seeds": 2,
        "mean": pytest.approx(mean),
        "sd": pytest.approx(sd),
    }
    assert (
        f"Trial {best.number} with 2 further seeds: dev loss {mean:.4f} ± {sd:.4f} (mean ± sd)"
        in ran.err.splitlines()
    )


def test_a_study_without_trials_says_so(workdir: Path, run_file: Any) -> None:
    Path("mlruns/optuna").mkdir()
    storage = optuna.storages.JournalStorage(
        optuna.storages.journal.JournalFileBackend("mlruns/optuna/new.journal")
    )
    optuna.create_study(study_name="new", storage=storage)
    ran = run_file(COMPARE, "new", "--json")
    assert ran.code == 0 and ran.json == {"study": "new", "states": {}, "trials": [], "repeats": []}
    assert ran.err.strip() == "Study new has no trials yet."


def test_bad_input_is_refused_in_a_sentence(launch: Callable[..., int], run_file: Any) -> None:
    launch(trials=1)
    refusals = {
        (
            "none",
        ): f"no study 'none' in {Path('mlruns/optuna').absolute()}, which holds small; give one of these "
        "names, run the command from the folder that holds the right mlruns/, or give --storage.",
        ("small", "--top", "0"): "--top must be at least 1, but got 0.",
        (
            "small",
            "--csv",
            "names.txt/x",
        ): "names.txt/x: cannot be written (File exists); give --csv another path.",
    }
    assert {flags: run_file(COMPARE, *flags).refusal for flags in refusals} == refusals
