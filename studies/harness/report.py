"""What a study leaves beside its trials: a table and pictures."""

from __future__ import annotations

from pathlib import Path

import optuna

from studies.harness.results import read_results, trials_frame

__all__ = ["trials_frame", "write_study_files"]


def write_study_files(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv and the study's pictures: history.png, importances.png, parallel.png, slices.png."""
    from studies.harness.pictures import write_pictures  # matplotlib takes 0.3 s to import

    trials_frame(study).to_csv(folder / "trials.csv", index=False)
    write_pictures(read_results(study), folder)
