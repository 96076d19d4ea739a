"""Checks a study that has ended: each finished trial has one finished run, with all its files."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.stores import (
    FINISHED,
    Run,
    Study,
    Trial,
    artifact_folder,
    read_runs,
    read_study,
)

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
# The kinds of findings, in the order of the summary.
LOST, DOUBLED, FILE_LOST = "trial lost", "doubled", "file lost"
DIFFERS, OPEN, OUTSIDE = "value differs", "left open", "outside the folder"


@dataclass(frozen=True)
class Finding:
    """One broken promise: its kind, and the trial, run or file."""

    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.kind}: {self.detail}"


@dataclass(frozen=True)
class Place:
    """Where a study is stored.

    Attributes:
        folder: the working directory of the launches.
        study: name of the study.
        server: the folder of an MLflow server; None for the default store in mlruns/.
    """

    folder: Path
    study: str
    server: Path | None = None

    @property
    def journal(self) -> Path:
        return self.folder / "mlruns" / "optuna" / f"{self.study}.journal"

    @property
    def outbox(self) -> Path:
        return self.folder / "mlruns" / "outbox" / self.study

    @property
    def database(self) -> Path:
        return (self.server or self.folder / "mlruns") / "mlflow.db"

    @property
    def artifacts(self) -> Path:
        return (self.server or self.folder / "mlruns") / "artifacts"


def check(place: Place, total: int, repeats: int = 0) -> list[Finding]:
    """Check an ended study.

    Args:
        place: where it is stored.
        total: trials that the study must have; follow-up trials do not count.
        repeats: how many seed repeats a trial can have.
    """
    try:
        study = read_study(place.journal)
    except ValueError as error:
        return [Finding(LOST, f"the journal cannot be read: {error}")]
    runs = read_runs(place.database, place.study) if place.database.exists() else []
    return [
        *_check_trials(study, total, repeats),
        *_check_runs(study, runs),
        *_check_parents(runs),
        *_check_final_runs(study, runs, place),
        *_check_outbox(place),
    ]


# ---- trials


def _check_trials(study: Study, total: int, repeats: int) -> Iterator[Finding]:
    done = sum(trial.counts for trial in study.trials)
    if done < total:
        yield Finding(LOST, f"{total - done} of {total} trials are missing")
    elif done > total:
        yield Finding(DOUBLED, f"{done - total} trials more than the total of {total}")
    for trial in study.trials:
        if trial.state not in FINISHED:
            yield Finding(OPEN, f"trial {trial.number} is {trial.state}")
    params = Counter(json.dumps(t.params, sort_keys=True) for t in study.trials if t.counts)
    for text, count in params.items():
        if count > 1:
            yield Finding(DOUBLED, f"{count} trials have {text}")
    repeated = Counter(t.attrs.get("repeat_of") for t in study.trials if "replaced" not in t.attrs)
    for number, count in repeated.items():
        if number is not None and count > repeats:
            yield Finding(DOUBLED, f"trial {number} has {count} seed repeats")


# ---- runs


def _check_runs(study: Study, runs: list[Run]) -> Iterator[Finding]:
    """Check that no run is open, surplus or without a trial."""
    by_id = {run.id for run in runs}
    attempts: Counter[tuple[int, str]] = Counter()
    for run in runs:
        if run.status == "RUNNING":
            yield Finding(OPEN, f"run {run.id} ({_name(run)}) is RUNNING")
        if run.trial is None:
            continue
        attempts[run.trial, run.tags.get("launch", "")] += 1
        if run.trial >= len(study.trials):
            yield Finding(DOUBLED, f"run {run.id} names trial {run.trial}, which does not exist")
        if run.tags.get("mlflow.parentRunId") not in by_id:
            yield Finding(DIFFERS, f"the parent of run {run.id} ({_name(run)}) does not exist")
    for (number, launch), count in attempts.items():
        if count > 1:
            yield Finding(DOUBLED, f"trial {number} has {count} runs of launch {launch}")


def _check_parents(runs: list[Run]) -> Iterator[Finding]:
    parents = [run for run in runs if run.trial is None]
    for launch, count in Counter(run.tags.get("launch", "") for run in parents).items():
        if count > 1:
            yield Finding(DOUBLED, f"launch {launch} has {count} parent runs")
    if runs and not any(run.status == "FINISHED" for run in parents):
        yield Finding(LOST, "no parent run is FINISHED")


def _name(run: Run) -> str:
    return "parent run" if run.trial is None else f"trial {run.trial}"


def _check_final_runs(study: Study, runs: list[Run], place: Place) -> Iterator[Finding]:
    """Check that each finished trial has exactly one finished run, with its values and files."""
    final = defaultdict(list)
    for run in runs:
        if run.state in FINISHED and run.status != "RUNNING":
            final[run.trial].append(run)
    for trial in study.trials:
        # A proposal that was trained before is replaced: it is FAIL, was not trained, has no run.
        if trial.state not in FINISHED or "seed" not in trial.attrs:
            continue
        found = final[trial.number]
        if not found:
            yield Finding(LOST, f"trial {trial.number} is {trial.state} and has no finished run")
        elif len(found) > 1:
            yield Finding(DOUBLED, f"trial {trial.number} has {len(found)} finished runs")
        for run in found:
            yield from _check_values(study, trial, run)
            yield from _check_files(study, trial, run, place)


def _config(study: Study, trial: Trial) -> dict[str, Any]:
    return {**study.attrs["base"], **trial.params, "seed": trial.attrs["seed"]}


def _check_values(study: Study, trial: Trial, run: Run) -> Iterator[Finding]:
    name = f"trial {trial.number}"
    if (run.state, run.status) != (trial.state, STATUS[trial.state]):
        yield Finding(DIFFERS, f"{name} is {trial.state}, its run {run.state} ({run.status})")
    for key, value in _config(study, trial).items():
        if run.params.get(key) != str(value):
            yield Finding(DIFFERS, f"{name}: {key} is {value}, in MLflow {run.params.get(key)}")
    if trial.state == "FAIL":
        return
    if not _same(trial.dev_loss, run.dev_loss):
        text = f"{name}: dev_loss is {trial.dev_loss}, in MLflow {run.dev_loss}"
        yield Finding(DIFFERS, text)
    missing = [
        step
        for step, loss in trial.losses.items()
        if math.isfinite(loss) and not any(s == step and _same(loss, v) for s, v in run.losses)
    ]
    if missing:
        yield Finding(LOST, f"{name}: MLflow lacks the evaluations at {missing}")
    if surplus := sorted({step for step, _ in run.losses} - trial.losses.keys()):
        yield Finding(DOUBLED, f"{name}: MLflow has evaluations at {surplus} too")


def _same(first: float | None, second: float | None) -> bool:
    if first is None or second is None:
        return first is second
    return math.isclose(first, second, rel_tol=1e-12)


# ---- files


def _check_files(study: Study, trial: Trial, run: Run, place: Place) -> Iterator[Finding]:
    """Check that the files of a run exist and are whole. Fewer trials than `--keep-models` ran."""
    folder = artifact_folder(run, place.artifacts)
    if not folder.is_relative_to(place.server or place.folder):
        yield Finding(OUTSIDE, f"trial {trial.number}: its files are in {folder}")
    broken = []
    if not _is_config(folder / "config.toml", _config(study, trial)):
        broken.append("config.toml")
    if trial.has_result and "repeat_of" not in trial.attrs:
        samples = folder / "samples.txt"
        if not (samples.is_file() and samples.read_bytes().endswith(b"\n")):
            broken.append("samples.txt")
        if not _is_checkpoint(folder / "model.safetensors"):
            broken.append("model.safetensors")
    for name in broken:
        yield Finding(FILE_LOST, f"trial {trial.number}: {folder / name} is missing or broken")


def _is_config(path: Path, config: dict[str, Any]) -> bool:
    try:
        stored = tomllib.loads(path.read_text()).get("config", {})
    except (OSError, ValueError):
        return False
    return all(stored.get(key) == value for key, value in config.items())


def _is_checkpoint(path: Path) -> bool:
    """Return whether a safetensors file has all bytes that its header announces."""
    try:
        content = path.read_bytes()
        size = int.from_bytes(content[:8], "little")
        header = json.loads(content[8 : 8 + size])
    except (OSError, ValueError):
        return False
    ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
    return bool(ends) and len(content) == 8 + size + max(ends)


def _check_outbox(place: Place) -> Iterator[Finding]:
    for path in sorted(place.outbox.glob("*")):
        if path.is_dir():
            yield Finding(OPEN, f"the outbox still holds {path.name}")


# ---- comparison of two studies and of two folders


def compare(expected: Study, actual: Study) -> list[Finding]:
    """Compare each trial with the same trial of a study that saw no fault, bit for bit."""
    found = []
    for first, second in zip(expected.trials, actual.trials, strict=False):
        for key in ("params", "state", "dev_loss", "losses"):
            old, new = getattr(first, key), getattr(second, key)
            if old != new:
                detail = f"trial {first.number}: without faults {key} is {old}, here {new}"
                found.append(Finding("not reproduced", detail))
                break
    return found


def fingerprint(folder: Path) -> dict[str, str]:
    """Return the checksum of every file below a folder."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def changed_files(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Return the files that were added, removed or changed between two fingerprints."""
    names = sorted({*before, *after})
    return [name for name in names if before.get(name) != after.get(name)]
