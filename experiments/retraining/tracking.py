"""Log a retraining to MLflow: a parent run, a child run per seed, and the registered model."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from experiments.logged_model import Entry
from experiments.registry import Registered, register, registered_name
from experiments.retraining.results import Outcome, Retraining, SeedResult
from makemore.models import class_of
from studies.harness.tracking.whole_runs import FinishedRun, log_run

EXPERIMENT = "retrain"


TEST_SPLIT = "read once in this run, after all training; nothing was chosen by it"


def test_use(retraining: Retraining) -> str:
    """Return how the test split was used, as the end of a sentence."""
    return TEST_SPLIT if "test_loss" in retraining.losses else "not read"


def log_outcome(
    client: Any, experiment_id: str, outcome: Outcome, *, into_registry: bool
) -> tuple[str, Registered | None]:
    """Write the runs to MLflow, and register the selected model.

    Returns:
        The id of the parent run, and the registered version or None.

    Raises:
        Outage: MLflow refused a run.
        UserError: MLflow refused the model.
    """
    retraining = outcome.retraining
    dataset = retraining.dataset
    with tempfile.TemporaryDirectory() as folder:
        parent = _parent_run(outcome, Path(folder))
        parent_id = log_run(client, experiment_id, parent, dataset)

    selected_id = ""
    kind = _kind(retraining)
    for name, seeds in outcome.sides:
        teacher = _teacher_tags(retraining) if seeds is retraining.seeds else {}
        for seed in seeds:
            child = _seed_run(seed, {"kind": kind, "config": name, **teacher}, outcome.began)
            run_id = log_run(client, experiment_id, child, dataset, parent_id=parent_id)
            if seed is retraining.selected:
                selected_id = run_id
    if not into_registry:
        return parent_id, None

    registered = register(
        client, experiment_id, selected_id, entry_of(retraining), outcome.checkpoint
    )
    text = f"version {registered.version}, {registered.alias}: {registered.reason}"
    client.set_tag(parent_id, "registered", text)
    return parent_id, registered


def entry_of(retraining: Retraining) -> Entry:
    """Return the selected seed's model as the registry stores it."""
    selected = retraining.selected
    config = selected.config.model_dump()
    n = len(retraining.seeds)
    loss = retraining.mean_dev_loss
    text = "" if loss is None else f"dev loss {loss:.4f}"
    model_class = class_of(selected.model)
    return Entry(
        name=registered_name(model_class),
        model_class=model_class,
        description="Makes up names, character by character.",
        params=config,
        losses=selected.losses,
        dataset=retraining.dataset,
        dev_loss=loss,
        loss_text=text if n == 1 else f"mean {text} over {n} seeds",
        step=selected.config.max_steps,
        tags={
            **{f"config.{key}": value for key, value in config.items()},
            "n_seeds": n,
            "trained_on": retraining.trained_on,
            "selected": f"{retraining.select} of {n} seeds by {retraining.selection_loss}",
            **{f"origin.{key}": retraining.origin.get(key) for key in ("study", "trial")},
            **_teacher_tags(retraining),
        },
    )


def _parent_run(outcome: Outcome, folder: Path) -> FinishedRun:
    """Return the parent run: means over the seeds, and the files, which are written to `folder`."""
    retraining = outcome.retraining
    difference = outcome.difference
    summary = retraining.summary()
    config = retraining.seeds[0].config

    tags = {
        "kind": _kind(retraining),
        **_teacher_tags(retraining),
        "test_split": test_use(retraining),
        "trained_on": retraining.trained_on,
        "selected": retraining.select,
    }
    for key in ("study", "trial"):
        if key in retraining.origin:
            tags[f"origin.{key}"] = str(retraining.origin[key])

    # The first metric is the one that MLflow's compare page preselects.
    values = {
        name: summary["mean"][name] for name in (retraining.selection_loss, *retraining.losses)
    }
    values |= {f"{name}_sd": sd for name, sd in summary["sd"].items() if sd is not None}
    if difference is not None:
        tags |= {"against": difference.names[1], "comparison": difference.sentence}
        values |= {"difference": difference.loss, "difference_margin": difference.margin}

    name = f"{summary['mean'][retraining.selection_loss]:.4f} · {retraining.name}"
    params = {**config.model_dump(exclude={"seed"}), "seeds": len(retraining.seeds)}
    metrics = [(key, value, config.max_steps) for key, value in values.items()]
    return FinishedRun(name, params, metrics, tags, _write_files(folder, outcome), outcome.began)


def _kind(retraining: Retraining) -> str:
    """Return the kind of the runs, after the script that wrote them."""
    return "retrain" if retraining.teacher is None else "distil"


def _teacher_tags(retraining: Retraining) -> dict[str, str]:
    """Return the tags that describe the teacher; none without one."""
    return {f"teacher.{key}": str(value) for key, value in (retraining.teacher or {}).items()}


def _write_files(folder: Path, outcome: Outcome) -> list[Path]:
    """Write the artifacts of the parent run, and return their paths."""
    # Imported late: it loads matplotlib, which takes 0.3 s.
    from experiments.retraining.figure import draw_comparison

    config = folder / "config.toml"
    first = outcome.retraining.seeds[0]
    origin = outcome.retraining.origin
    if outcome.retraining.teacher is not None:
        origin = {**origin, "teacher": outcome.retraining.teacher}
    config.write_text(first.config.to_toml(origin=origin), encoding="utf-8")

    model = folder / "model.safetensors"
    shutil.copy(outcome.checkpoint, model)

    samples = folder / "samples.txt"
    samples.write_text("\n".join(outcome.samples) + "\n", encoding="utf-8")

    figure = draw_comparison(folder / "comparison.png", outcome.sides, outcome.baselines)
    return [config, model, samples, figure]


def _seed_run(seed: SeedResult, tags: dict[str, str], began: float) -> FinishedRun:
    """Return the run of one seed: its curve, then the exact losses of its kept weights."""
    result = seed.result
    rows = []
    for point in result.history:
        curve = {"minibatch_loss": point.minibatch_loss, "current_lr": point.lr}
        # Trained on train and dev together, a model has no dev loss.
        if "dev_loss" in seed.losses:
            curve["current_dev_loss"] = point.dev_loss
        rows += [(key, float(value), point.step) for key, value in curve.items()]

    # The first metric is the one that MLflow's compare page preselects.
    score = "dev_loss" if "dev_loss" in seed.losses else "train_loss"
    final = {
        score: seed.losses[score],
        **seed.losses,
        "best_step": result.best.step,
        "seconds": result.seconds,
        "n_params": result.n_params,
    }
    rows = [(key, float(value), seed.config.max_steps) for key, value in final.items()] + rows

    name = f"{seed.losses[score]:.4f} · {tags['config']}, seed {seed.config.seed}"
    return FinishedRun(name, seed.config.model_dump(), rows, tags, started=began)
