"""Export of a trial: its config as a TOML file that can be trained again, with its origin."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import FrozenTrial

from makemore.errors import UserError, check_output, writing
from studies.harness.store.paths import ROOT
from studies.harness.store.text import without_password
from studies.harness.store.trials import counts, dev_loss, trial_config
from studies.harness.store.winner.noise import confirmed_means, measure_noise
from studies.harness.store.winner.winner import Winner, find_winner
from studies.harness.tracking.runs import versions

# Fields of [origin] that may differ between two exports of the same trial.
EXPORT_FIELDS = ("command", "exported", "commit", "versions", "trials")


@dataclass(frozen=True)
class Export:
    """What `export_trial` wrote.

    Attributes:
        trial: the exported trial.
        winner: of the study.
        origin: the [origin] table.
        written: False if the file already held this trial.
    """

    trial: FrozenTrial
    winner: Winner
    origin: dict[str, Any]
    written: bool


def export_trial(
    study: optuna.Study,
    path: Path,
    number: int | None = None,
    *,
    flags: Sequence[str] = (),
    force: bool = False,
) -> Export:
    """Write the config of a trial, by default the winner, and its origin to a TOML file.

    Args:
        study: a study of this project.
        path: the file; missing folders are created.
        number: of the trial; None for the winner.
        flags: with which experiments/export.py finds the stores, for the table [origin].
        force: overwrite a file that holds something else.

    Raises:
        UserError: the trial does not exist or has no dev loss, or the file cannot be written.
    """
    check_output(path, "--out")
    winner = require_winner(study)
    trial = winner.trial if number is None else _find_trial(study, number)
    chosen = [] if number is None else ["--trial", str(number)]
    origin = _origin(study, trial, [study.study_name, *chosen, *flags])
    text = trial_config(study, trial).to_toml(origin=origin)
    return Export(trial, winner, origin, _write_config(path, text, force=force))


def require_winner(study: optuna.Study) -> Winner:
    """Return the winner.

    Raises:
        UserError: no trial has a dev loss.
    """
    winner = find_winner(study.get_trials(deepcopy=False))
    if winner is None:
        raise UserError(
            f"study {study.study_name!r} has no finished trial yet; "
            "let it run until a trial has a dev loss."
        )
    return winner


def _find_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return the trial with this number.

    Raises:
        UserError: no such trial exists, or it has no dev loss.
    """
    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {number}; "
            f"its trials are 0 to {len(trials) - 1}."
        )
    if dev_loss(trials[number]) is None:
        summary = trials[number].user_attrs.get("summary", {})
        state = summary.get("reason") or trials[number].state.name.lower()
        raise UserError(
            f"trial {number} of study {study.study_name!r} has no dev loss ({state}); "
            "choose another trial."
        )
    return trials[number]


# ---- the [origin] table


def _origin(study: optuna.Study, trial: FrozenTrial, arguments: Sequence[str]) -> dict[str, Any]:
    """Return the [origin] table: where the config comes from.

    Args:
        study: the study.
        trial: the exported trial.
        arguments: of experiments/export.py.
    """
    summary = trial.user_attrs["summary"]
    trials = study.get_trials(deepcopy=False)
    noise = measure_noise(trials)
    group = next((g for g in noise.groups if g.trial == trial.number), None) if noise else None
    shown = [without_password(argument) for argument in arguments]

    origin = {
        "study": study.study_name,
        "trial": trial.number,
        "repeat_of": trial.user_attrs.get("repeat_of"),
        "state": trial.state.name,
        "dev_loss": summary["dev_loss"],
        "best_step": summary["best_step"],
        **confirmed_means(group),
        "trials": sum(counts(t) and t.state.is_finished() for t in trials),
        "data": study.user_attrs["data"],
        "data_sha256": study.user_attrs["data_sha256"],
        "model": study.user_attrs.get("model"),
        "commit": find_commit(),
        "command": shlex.join(["python", "experiments/export.py", *shown]),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
    }
    return {key: value for key, value in origin.items() if value is not None}


def find_commit() -> str | None:
    """Return this checkout's commit, with -dirty if files differ from it, or None without git."""
    # An installed package may be inside the repository of another project.
    if not (ROOT / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *describe], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


# ---- the file


def _write_config(path: Path, text: str, *, force: bool) -> bool:
    """Write the file atomically. Returns False if it already holds the same trial.

    Raises:
        UserError: the file holds something else and `force` is off, or it cannot be written.
    """
    with writing(path, "--out"):
        if path.exists() and not force:
            before, after = _parse_export(path.read_bytes()), _parse_export(text.encode())
            if before == after:
                return False
            if _without_mean(before) != _without_mean(after):
                raise UserError(
                    f"{path}: exists and is not the config of this trial; "
                    "give --force to overwrite it, or give --out another path."
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _parse_export(raw: bytes) -> dict[str, Any] | None:
    """Return the tables of an exported file, or None if it is not TOML.

    Fields of [origin] that may differ between two exports of a trial are left out.
    """
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except ValueError:  # not UTF-8, or not TOML
        return None
    origin = tables.get("origin", {})
    if not isinstance(origin, dict):
        return None
    kept = {key: value for key, value in origin.items() if key not in EXPORT_FIELDS}
    return {**tables, "origin": kept}


def _without_mean(tables: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the tables without the mean over seed repeats, which further repeats change."""
    if tables is None:
        return None
    origin = {k: v for k, v in tables["origin"].items() if not k.startswith("confirmed_")}
    return {**tables, "origin": origin}
