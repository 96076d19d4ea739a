"""What a retraining leaves in MLflow: a parent run, a child run a seed, and the selected seed's model."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from experiments.measures import Baseline, Difference
from experiments.registry import Registered, register
from experiments.seeds import Replica, Retraining
from studies.harness.tracking.runs import FinishedRun, log_run

TEST_SPLIT = "read once, after all training; nothing was chosen by it"


@dataclass(frozen=True)
class Outcome:
    """All that a run of experiments/retrain.py came to.

    Attributes:
        rival: the seeds of the second config, with its name; None without one.
        checkpoint: the selected seed's model.
        samples: words that it makes up.
        began: seconds since the epoch.
    """

    done: Retraining
    rungs: list[Baseline]
    rival: tuple[str, list[Replica]] | None
    difference: Difference | None
    checkpoint: Path
    samples: list[str]
    began: float

    @property
    def sides(self) -> list[tuple[str, list[Replica]]]:
        """Each config's name and seeds."""
        return [(self.done.name, self.done.replicas), *([self.rival] if self.rival else [])]


def log_outcome(
    client: Any, experiment_id: str, outcome: Outcome, *, into_registry: bool
) -> tuple[str, Registered | None]:
    """Write everything to MLflow; returns the parent run's id and what was registered.

    Raises:
        UserError: MLflow did not take it; one sentence.
    """
    done = outcome.done
    with tempfile.TemporaryDirectory() as folder:
        parent_id = log_run(client, experiment_id, _parent(outcome, Path(folder)), done.dataset)
    runs = {}
    for name, replicas in outcome.sides:
        for replica in replicas:
            child = _child(replica, {"kind": "retrain", "config": name}, outcome.began)
            runs[id(replica)] = log_run(
                client, experiment_id, child, done.dataset, parent_id=parent_id
            )
    if not into_registry:
        return parent_id, None
    registered = register(client, experiment_id, runs[id(done.selected)], done, outcome.checkpoint)
    client.set_tag(
        parent_id,
        "registered",
        f"version {registered.version}, {registered.alias}: {registered.reason}",
    )
    return parent_id, registered


def _parent(outcome: Outcome, folder: Path) -> FinishedRun:
    done, difference = outcome.done, outcome.difference
    summary, config = done.summary(), done.replicas[0].config
    tags = {
        "kind": "retrain",
        "test_split": TEST_SPLIT,
        "trained_on": done.on,
        "selected": done.select,
    }
    tags |= {
        f"origin.{key}": str(done.origin[key]) for key in ("study", "trial") if key in done.origin
    }
    values = {name: summary["mean"][name] for name in (done.decides, *done.losses)}
    values |= {f"{name}_sd": sd for name, sd in summary["sd"].items() if sd is not None}
    if difference is not None:
        tags |= {"against": difference.names[1], "comparison": difference.sentence}
        values |= {"difference": difference.loss, "difference_margin": difference.margin}
    params = {**config.model_dump(exclude={"seed"}), "seeds": len(done.replicas)}
    metrics = [(key, value, config.max_steps) for key, value in values.items()]
    name = f"{summary['mean'][done.decides]:.4f} · {done.name}"
    return FinishedRun(name, params, metrics, tags, _write_files(folder, outcome), outcome.began)


def _write_files(folder: Path, outcome: Outcome) -> list[Path]:
    from experiments.picture import draw_comparison  # matplotlib takes 0.3 s to import

    config, model, samples = (
        folder / "config.toml",
        folder / "model.safetensors",
        folder / "samples.txt",
    )
    config.write_text(
        outcome.done.replicas[0].config.to_toml(origin=outcome.done.origin), encoding="utf-8"
    )
    shutil.copy(outcome.checkpoint, model)
    samples.write_text("\n".join(outcome.samples) + "\n", encoding="utf-8")
    return [
        config,
        model,
        samples,
        draw_comparison(folder / "comparison.png", outcome.sides, outcome.rungs),
    ]


def _child(replica: Replica, tags: dict[str, str], began: float) -> FinishedRun:
    result, losses = replica.result, replica.losses
    shown = ("dev_loss", "train_loss", "lr") if "dev_loss" in losses else ("train_loss", "lr")
    rows = [
        (key, float(getattr(point, key)), point.step) for point in result.history for key in shown
    ]
    # Tables show the last value: the exact losses of the best weights, as the checkpoint has them.
    final = {
        **losses,
        "best_step": result.best.step,
        "seconds": result.seconds,
        "n_params": result.n_params,
    }
    rows += [(key, float(value), replica.config.max_steps) for key, value in final.items()]
    score = losses.get("dev_loss", losses["train_loss"])
    return FinishedRun(
        f"{score:.4f} · seed {replica.config.seed}",
        replica.config.model_dump(),
        rows,
        tags,
        started=began,
    )
