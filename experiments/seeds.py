"""One config trained with several seeds, side by side in an engine's slots."""

from __future__ import annotations

import statistics
import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from rich.progress import Progress

from makemore.config import Config
from makemore.engines import Engine, EngineFailed, EvalPoint, TrainResult
from makemore.errors import UserError
from makemore.model import MLP
from studies.harness.cli.terminal import make_console
from studies.harness.store.trials import trial_seed

LOSSES = ("train_loss", "dev_loss", "test_loss")
TRAIN, TRAIN_AND_DEV = "train", "train+dev"  # what may be trained on
MAX_RETRIES = 2  # how often a seed whose engine failed is trained again


@dataclass(frozen=True)
class Replica:
    """What one seed came to.

    Attributes:
        losses: train_loss, dev_loss, test_loss: exact means of the kept weights over each whole split, in nats per
            character. Trained on train and dev together, train_loss is that of both and there is no dev_loss.
        words: (W,) float64, what each test word costs, its end included, in nats.
    """

    result: TrainResult
    losses: dict[str, float]
    words: np.ndarray

    @property
    def model(self) -> MLP:
        """The weights of the best evaluation."""
        return self.result.model

    @property
    def config(self) -> Config:
        """What was trained."""
        return self.model.config


@dataclass(frozen=True)
class Retraining:
    """All seeds of one config.

    Attributes:
        config: as it stands in the file.
        origin: the [origin] table of the file; empty when it has none.
        dataset: as `describe_data` gives it.
        on: what was trained on, TRAIN or TRAIN_AND_DEV.
        select: which seed's model is kept, "median" or "best".
    """

    name: str
    config: Config
    origin: dict[str, Any]
    dataset: dict[str, str]
    replicas: list[Replica]
    on: str = TRAIN
    select: str = "median"

    @property
    def losses(self) -> list[str]:
        """The losses that are measures here, in order."""
        return [name for name in LOSSES if name in self.replicas[0].losses]

    @property
    def decides(self) -> str:
        """The loss that the seed is selected by; never that of the test split."""
        return "dev_loss" if self.on == TRAIN else "train_loss"

    @property
    def selected(self) -> Replica:
        """The seed whose model is kept: the median (the better of two in the middle), or the best."""
        ordered = sorted(self.replicas, key=lambda replica: replica.losses[self.decides])
        return ordered[(len(ordered) - 1) // 2 if self.select == "median" else 0]

    @property
    def again(self) -> float | None:
        """What the config's own seed came to where the origin has its dev loss; None where that cannot be compared."""
        first = self.replicas[0]
        if first.config != self.config or self.origin.get("data_sha256") != self.dataset["sha256"]:
            return None
        losses = {point.step: point.dev_loss for point in first.result.history}
        return (
            losses.get(self.origin.get("best_step", 0))
            if isinstance(self.origin.get("dev_loss"), float)
            else None
        )

    def summary(self) -> dict[str, Any]:
        """What --json prints of it."""
        columns = {
            name: [replica.losses[name] for replica in self.replicas] for name in self.losses
        }
        return {
            "name": self.name,
            "n_params": self.selected.result.n_params,
            "trained_on": self.on,
            "seeds": [
                {"seed": r.config.seed, "best_step": r.result.best.step, **r.losses}
                for r in self.replicas
            ],
            "mean": {name: statistics.fmean(values) for name, values in columns.items()},
            "sd": {
                name: statistics.stdev(values) if len(values) > 1 else None
                for name, values in columns.items()
            },
            "selected_seed": self.selected.config.seed,
            "reproduced": None if self.again is None else self.again == self.origin["dev_loss"],
        }


def make_configs(config: Config, seeds: int, steps: int | None, on: str = TRAIN) -> list[Config]:
    """The config once a seed: its own, then seeds derived from it. Other steps keep the share of the eval_interval.

    Trained on train and dev together there is no split left that could tell which weights are best, so the only
    evaluation is the last step's, and its weights are kept.

    Raises:
        UserError: a number is out of range.
    """
    if seeds < 1:
        raise UserError(f"--seeds must be at least 1, but got {seeds}.")
    if steps is not None:
        if steps < 1:
            raise UserError(f"--steps must be at least 1, but got {steps}.")
        interval = max(1, config.eval_interval * steps // config.max_steps)
        config = config.replace(max_steps=steps, eval_interval=interval)
    if on == TRAIN_AND_DEV:
        config = config.replace(eval_interval=config.max_steps)
    return [
        config,
        *(config.replace(seed=trial_seed(config.seed, number)) for number in range(1, seeds)),
    ]


def train_all(
    engine: Engine, configs: Sequence[Config], *, watch: str = "dev_loss"
) -> list[TrainResult]:
    """Train configs side by side in an engine's slots; returns their results in the same order.

    Args:
        watch: the loss that the progress shows, dev_loss or train_loss.

    Raises:
        UserError: a config does not fit the engine.
        Diverged: a loss was not finite.
        EngineFailed: the device failed more than MAX_RETRIES times in training one of them.
    """
    results: dict[int, TrainResult] = {}
    waiting, running, failures = deque(range(len(configs))), dict[int, int](), Counter[int]()
    with _progress(configs, watch) as show:
        while len(results) < len(configs):
            while waiting and len(running) < engine.capacity:
                number = waiting.popleft()
                running[engine.admit(configs[number])] = number
            for slot, outcome in engine.advance():
                number = running[slot]
                if isinstance(outcome, EvalPoint):
                    show(number, outcome)
                    if outcome.step == configs[number].max_steps:
                        results[running.pop(slot)] = engine.remove(slot)
                elif isinstance(outcome, EngineFailed) and failures[number] < MAX_RETRIES:
                    failures[number] += 1
                    engine.remove(slot)
                    waiting.append(running.pop(slot))
                else:
                    raise outcome
    return [results[number] for number in range(len(configs))]


@contextmanager
def _progress(configs: Sequence[Config], watch: str) -> Iterator[Callable[[int, EvalPoint], None]]:
    """A bar a seed on a terminal, a line for each seed that ends elsewhere; both on standard error."""
    console = make_console(stderr=True)

    def loss(point: EvalPoint) -> str:
        return f"{watch.removesuffix('_loss')} {getattr(point, watch):.4f}"

    if not console.is_terminal:

        def line(number: int, point: EvalPoint) -> None:
            if point.step == configs[number].max_steps:
                print(
                    f"seed {configs[number].seed}: step {point.step:,}, {loss(point)}",
                    file=sys.stderr,
                )

        yield line
        return
    with Progress(console=console) as bars:
        tasks = [bars.add_task(f"seed {config.seed}", total=config.max_steps) for config in configs]

        def bar(number: int, point: EvalPoint) -> None:
            text = f"seed {configs[number].seed}, {loss(point)}"
            bars.update(tasks[number], completed=point.step, description=text)

        yield bar
