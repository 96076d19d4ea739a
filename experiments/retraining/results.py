"""Results of a retraining: each seed's losses, the selected seed, and the whole outcome."""

from __future__ import annotations

import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from makemore.config import Config
from makemore.engines import TrainResult
from makemore.models import Model

if TYPE_CHECKING:
    from experiments.registry import Registered
    from experiments.retraining.comparison import Difference
    from experiments.retraining.evaluation import Baseline

LOSSES = ("train_loss", "dev_loss", "test_loss")

# The words to train on: the values of --on.
TRAIN = "train"
TRAIN_AND_DEV = "train+dev"


@dataclass(frozen=True)
class SeedResult:
    """The trained model of one seed, and its losses.

    Attributes:
        losses: train_loss, dev_loss and test_loss: exact means of the kept weights over the whole
            split, in nats per character. After training on train and dev together, train_loss is
            the mean over both, and dev_loss is missing.
        word_costs: (W,) float64, the cross-entropy of each word of the last split of `losses`, its
            end included, in nats.
    """

    result: TrainResult
    losses: dict[str, float]
    word_costs: np.ndarray

    @property
    def model(self) -> Model:
        """The model with the kept weights: those of the best evaluation."""
        return self.result.model

    @property
    def config(self) -> Config:
        """The config that was trained, with this seed."""
        return self.model.config


@dataclass(frozen=True)
class Retraining:
    """All seeds of one config.

    Attributes:
        config: the config of the file.
        origin: the [origin] table of the file; empty if it has none.
        dataset: the words, from `describe_data`.
        seeds: one result per seed; the first is the config's own seed.
        trained_on: TRAIN or TRAIN_AND_DEV.
        select: the seed whose model is kept, "median" or "best".
        teacher: file and weight of the teacher, `Teacher.record`; None for training without one.
    """

    name: str
    config: Config
    origin: dict[str, Any]
    dataset: dict[str, str]
    seeds: list[SeedResult]
    trained_on: str = TRAIN
    select: str = "median"
    teacher: dict[str, Any] | None = None

    @property
    def losses(self) -> list[str]:
        """The names of the losses that exist, in the order of LOSSES."""
        return [name for name in LOSSES if name in self.seeds[0].losses]

    @property
    def selection_loss(self) -> str:
        """The loss that selects the seed; never the test loss."""
        return "dev_loss" if self.trained_on == TRAIN else "train_loss"

    @property
    def selected(self) -> SeedResult:
        """The seed whose model is kept: the median (of two middle ones the worse) or the best."""
        ordered = sorted(self.seeds, key=lambda seed: seed.losses[self.selection_loss])
        return ordered[len(ordered) // 2 if self.select == "median" else 0]

    @property
    def mean_dev_loss(self) -> float | None:
        """Mean dev loss of the seeds; None after training on dev too."""
        if self.trained_on != TRAIN:
            return None
        return statistics.fmean(seed.losses["dev_loss"] for seed in self.seeds)

    @property
    def reproduced_loss(self) -> float | None:
        """The first seed's dev loss at the origin's best step, or None if it is not comparable.

        It is comparable if config and words are those of the exported trial, without a teacher.
        """
        first = self.seeds[0]
        if self.teacher is not None:
            return None
        if first.config != self.config or self.origin.get("data_sha256") != self.dataset["sha256"]:
            return None
        if not isinstance(self.origin.get("dev_loss"), float):
            return None
        losses = {point.step: point.dev_loss for point in first.result.history}
        return losses.get(self.origin.get("best_step", 0))

    def summary(self) -> dict[str, Any]:
        """Return the fields for --json."""
        mean, sd = {}, {}
        for name in self.losses:
            values = [seed.losses[name] for seed in self.seeds]
            mean[name] = statistics.fmean(values)
            sd[name] = statistics.stdev(values) if len(values) > 1 else None
        loss = self.reproduced_loss
        return {
            "name": self.name,
            "n_params": self.selected.result.n_params,
            "trained_on": self.trained_on,
            "teacher": self.teacher,
            "seeds": [
                {"seed": seed.config.seed, "best_step": seed.result.best.step, **seed.losses}
                for seed in self.seeds
            ],
            "mean": mean,
            "sd": sd,
            "selected_seed": self.selected.config.seed,
            "reproduced": None if loss is None else loss == self.origin["dev_loss"],
        }


@dataclass(frozen=True)
class Outcome:
    """Everything that one run of experiments/retrain.py or experiments/distil.py produced.

    Attributes:
        retraining: the seeds of the config.
        baselines: losses of counting models on the same words.
        rival: name and seeds of the second config (--against), or of the training without a
            teacher; None without one.
        difference: the losses of the two compared, of the last split of `retraining.losses`.
        checkpoint: file of the selected seed's model.
        replaces: whether it replaced a file that existed.
        samples: words sampled from that model.
        began: start of the run, in seconds since the epoch.
    """

    retraining: Retraining
    baselines: list[Baseline]
    rival: tuple[str, list[SeedResult]] | None
    difference: Difference | None
    checkpoint: Path
    replaces: bool
    samples: list[str]
    began: float

    @property
    def sides(self) -> list[tuple[str, list[SeedResult]]]:
        """The name and the seeds of each config."""
        sides = [(self.retraining.name, self.retraining.seeds)]
        if self.rival is not None:
            sides.append(self.rival)
        return sides

    def summary(self, run_id: str | None, registered: Registered | None) -> dict[str, Any]:
        """Return the object for --json.

        Args:
            run_id: the parent run in MLflow; None if MLflow did not take it.
            registered: the registered version; None if there is none.
        """
        version = None
        if registered is not None:
            version = {"version": registered.version, "alias": registered.alias}
        return {
            **self.retraining.summary(),
            "checkpoint": str(self.checkpoint),
            "mlflow_run_id": run_id,
            "baselines": {baseline.name: baseline.losses for baseline in self.baselines},
            "comparison": self.difference.summary() if self.difference else None,
            "registered": version,
        }
