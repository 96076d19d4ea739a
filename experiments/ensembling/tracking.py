"""Log an ensemble to MLflow: one run with its file and losses, and the registered model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from experiments.ensembling.results import Measured, Selected
from experiments.logged_model import Entry
from experiments.registry import ENSEMBLE, Registered, register
from experiments.retraining.tracking import TEST_SPLIT
from studies.harness.tracking.whole_runs import FinishedRun, log_run

EXPERIMENT = "ensemble"


def log_ensemble(
    client: Any,
    experiment_id: str,
    selected: Selected,
    test: Measured,
    path: Path,
    dataset: dict[str, str],
    *,
    began: float,
    into_registry: bool,
) -> tuple[str, Registered | None]:
    """Write the run to MLflow, and register the ensemble.

    Args:
        path: file of the ensemble.
        dataset: the words, from `describe_data`.
        began: start of the script, in seconds since the epoch.

    Returns:
        The id of the run, and the registered version or None.

    Raises:
        Outage: MLflow refused the run.
        UserError: MLflow refused the model.
    """
    losses = saved_losses(selected, test)
    # The first metric is the one that MLflow's compare page preselects.
    metrics = [(key, value, 0) for key, value in losses.items()]
    for split, measured in (("dev", selected.dev), ("test", test)):
        metrics += [(f"{split}: {name}", loss, 0) for name, loss in measured.losses.items()]
    tags = {"kind": "ensemble", "test_split": TEST_SPLIT, "dev_split": "cross-fitted by word"}
    name = f"{selected.dev_loss:.4f} · {path.stem}"
    params = _params(selected)
    run = FinishedRun(name, params, metrics, tags, [path], began)
    run_id = log_run(client, experiment_id, run, dataset)
    if not into_registry:
        return run_id, None

    entry = Entry(
        name=ENSEMBLE,
        description="An ensemble that makes up names, character by character.",
        params=params,
        losses=losses,
        dataset=dataset,
        dev_loss=selected.dev_loss,
        loss_text=f"cross-fitted dev loss {selected.dev_loss:.4f}",
        tags=params,
    )
    return run_id, register(client, experiment_id, run_id, entry, path)


def saved_losses(selected: Selected, test: Measured) -> dict[str, float]:
    """Return dev_loss (cross-fitted) and test_loss of the saved ensemble."""
    last = list(test.losses)[-1]
    return {"dev_loss": selected.dev_loss, "test_loss": test.losses[last]}


def _params(selected: Selected) -> dict[str, Any]:
    members = [f"{n} x {candidate.name}" for candidate, n in selected.members]
    return {
        "studies": ", ".join(sorted({c.study for c in selected.candidates})),
        "candidates": len(selected.candidates),
        "members": "; ".join(members),
        "n_members": len(members),
        "n_params": sum(candidate.model.flat.numel() for candidate, _ in selected.members),
        "counts_weight": selected.choice.counts_weight,
    }
