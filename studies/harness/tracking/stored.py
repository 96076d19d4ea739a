"""Checks that a server has what it confirmed, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.errors import Outage

if TYPE_CHECKING:
    pass


class NotStored(Outage):
    """A server confirmed a run, but does not have all of it."""


def check_stored(
    client: Any,
    run_id: str,
    status: str,
    *,
    metrics: Sequence[tuple[str, float, int, float]] = (),
    params: dict[str, Any] | None = None,
    folder: Path | None = None,
) -> None:
    """Check that a server has what it confirmed; a proxy may have answered in its place.

    Args:
        client: an MlflowClient.
        run_id: id of the run.
        status: the run's MLflow status.
        metrics: metrics of the run, as for `log_batch`.
        params: params of the run.
        folder: its files are the run's artifacts.

    Raises:
        NotStored: something is missing.
    """
    run = client.get_run(run_id)
    missing = [] if run.info.status == status else [f"status {status}"]
    missing += sorted((params or {}).keys() - run.data.params.keys())
    sent = [row for row in metrics if math.isfinite(row[1])]
    missing += sorted({row[0] for row in sent} - run.data.metrics.keys())
    if steps := {step for key, _, step, _ in sent if key == "dev_loss"}:
        stored = {metric.step for metric in client.get_metric_history(run_id, "dev_loss")}
        missing += [f"dev_loss at step {step}" for step in sorted(steps - stored)]
    if folder is not None and folder.exists():
        missing += _missing_files(client, run_id, folder)
    if missing:
        raise NotStored(f"the server confirmed run {run_id} but lacks its {', '.join(missing)}")


def _missing_files(client: Any, run_id: str, folder: Path, path: str = "") -> list[str]:
    """Return the files of a folder that are not among a run's artifacts with the same size."""
    stored = {item.path: item.file_size for item in client.list_artifacts(run_id, path or None)}
    missing = []
    for file in sorted(folder.iterdir()):
        name = f"{path}/{file.name}" if path else file.name
        if file.is_dir():
            missing += _missing_files(client, run_id, file, name)
        elif stored.get(name) != file.stat().st_size:
            missing.append(name)
    return missing


def remove_doubles(
    client: Any, run_id: str, runs: Sequence[Any], is_whole: Callable[[str], bool]
) -> None:
    """Delete the runs that a server made at calls whose answers were lost.

    Args:
        client: an MlflowClient.
        run_id: id of a run that is whole.
        runs: this run and the others of the same trial and launch.
        is_whole: whether another run, given by its id, has everything too; it is kept then, because
            it may have more.

    Raises:
        NotStored: the server does not list the run, or there were several; ask again.
    """
    others = [run.info.run_id for run in runs if run.info.run_id != run_id]
    if len(others) == len(runs):
        raise NotStored(f"the server does not list run {run_id}")
    for other in others:
        kept, surplus = (other, run_id) if is_whole(other) else (run_id, other)
        client.delete_run(surplus)
        run_id = kept
    if others:
        raise NotStored(f"the server had run {run_id} {len(runs)} times")
