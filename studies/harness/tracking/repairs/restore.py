"""Writes the run of a trial again, from Optuna's record and the files that are left."""

from __future__ import annotations

import shutil
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import optuna
from optuna.trial import FrozenTrial

from studies.harness.store.trials import restore_record
from studies.harness.tracking.sending.tracker import Tracker

LOST = "from Optuna's record; the checkpoint and the samples are lost"


def send_again(tracker: Tracker, study: optuna.Study, trial: FrozenTrial, folder: Path) -> None:
    """Let the tracker send a finished trial, whose run says what the folder lacks."""
    record = restore_record(study, trial)
    if any(not (folder / name).exists() for name in expected_files(trial)):
        record.tags["restored"] = LOST
    tracker.adopt(record, folder)


def any_folder(tracker: Tracker, number: int) -> bool:
    """Return whether the outbox has files of a trial."""
    return any(tracker.outbox.glob(f"{number:05d}-*"))


def expected_files(trial: FrozenTrial) -> set[str]:
    """Return the names of the files that the run of a finished trial must have.

    A trial whose checkpoint was dropped keeps its samples.
    """
    has_samples = trial.user_attrs.get("summary", {}).get("has_model", False)
    return {"config.toml", "samples.txt"} if has_samples else {"config.toml"}


def restore(
    tracker: Tracker,
    study: optuna.Study,
    trial: FrozenTrial,
    files: dict[int, list[Path]],
    replaced: Iterable[str] = (),
) -> None:
    """Write a trial's run again from Optuna's record.

    Optuna has neither the checkpoint nor the samples. They are copied from the disk and from the
    runs that are replaced. If there are none, the run's tag `restored` says so.

    Args:
        files: from `files_on_disk`.
        replaced: ids of the trial's runs that are deleted afterwards.
    """
    record = restore_record(study, trial)
    origin = {"study": study.study_name, "trial": trial.number}
    config = record.config.to_toml(origin=origin)
    prefix = f".restore-{tracker.launch}-"
    with tempfile.TemporaryDirectory(dir=tracker.outbox, prefix=prefix) as name:
        folder = Path(name) / "files"
        folder.mkdir()
        (folder / "config.toml").write_text(config)
        same = [
            old
            for old in files.get(trial.number, [])
            if _config(old) == tomllib.loads(config)["config"]
        ]
        if same:
            shutil.copytree(max(same, key=_completeness), folder, dirs_exist_ok=True)
        for run_id in replaced:
            tracker.client.download_artifacts(run_id, "", str(folder))
        own = tracker.folder_path(trial.number, record.tags["launch"])
        folder.rename(own)
    send_again(tracker, study, trial, own)


def files_on_disk(tracker: Tracker, study: optuna.Study) -> dict[int, list[Path]]:
    """Return the folders of artifacts on this disk by trial, also those of runs MLflow has lost."""
    location = tracker.client.get_experiment(tracker.experiment_id).artifact_location
    found: dict[int, list[Path]] = {}
    if not location.startswith("file://"):
        return found
    for path in Path(url2pathname(urlsplit(location).path)).glob("*/artifacts/config.toml"):
        origin = _tables(path.parent).get("origin", {})
        # A deleted study of the same name may have left other words.
        if origin.get("study") == study.study_name and "trial" in origin:
            if origin.get("data_sha256") in (None, study.user_attrs.get("data_sha256")):
                found.setdefault(int(origin["trial"]), []).append(path.parent)
    return found


def _tables(folder: Path) -> dict[str, Any]:
    try:
        return tomllib.loads((folder / "config.toml").read_text(encoding="utf-8"))
    except (OSError, ValueError):  # cut off by a full disk
        return {}


def _config(folder: Path) -> Any:
    return _tables(folder).get("config")


def _completeness(folder: Path) -> tuple[int, float]:
    """Rank the folders of one trial: by the number of files, then by age."""
    return len(list(folder.iterdir())), folder.stat().st_mtime
