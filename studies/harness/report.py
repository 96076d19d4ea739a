"""What a study leaves beside its trials: a table and pictures."""

from __future__ import annotations

from pathlib import Path

import optuna
import pandas as pd

from studies.harness.records import dev_loss


def trials_frame(study: optuna.Study) -> pd.DataFrame:
    """One row a trial, lowest dev loss first: number, state, reason, losses, parameters, sizes, seconds, seed."""
    rows = []
    for trial in study.get_trials(deepcopy=False):
        summary = trial.user_attrs.get("summary", {})
        rows.append(
            {
                "trial": trial.number,
                "state": trial.state.name,
                "reason": summary.get("reason", trial.user_attrs.get("replaced", "")),
                "dev_loss": dev_loss(trial),
                "train_loss": summary.get("train_loss"),
                **trial.params,
                "best_step": summary.get("best_step"),
                **summary.get("metrics", {}),
                "seed": trial.user_attrs.get("seed"),
            }
        )
    frame = pd.DataFrame(rows)
    return frame.sort_values(["dev_loss", "trial"], ignore_index=True) if len(frame) else frame


def write_study_files(study: optuna.Study, folder: Path) -> None:
    """Write trials.csv and the study's pictures."""
    trials_frame(study).to_csv(folder / "trials.csv", index=False)
