"""Train one config with several seeds, at the same time in the slots of an engine."""

from __future__ import annotations

import sys
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager

from rich.progress import Progress

from experiments.retraining.results import TRAIN, TRAIN_AND_DEV
from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import (
    Engine,
    EngineFailed,
    Envelope,
    EvalPoint,
    TrainResult,
    make_engine,
)
from makemore.errors import UserError
from makemore.models import ModelClass
from studies.harness.cli.args import count_slots
from studies.harness.cli.terminal import make_console
from studies.harness.store.trials import trial_seed

MAX_RETRIES = 2  # of a seed whose engine failed


def make_configs(config: Config, seeds: int, steps: int | None, on: str = TRAIN) -> list[Config]:
    """Return the config once per seed: its own seed first, then seeds derived from it.

    With another number of steps, eval_interval changes in proportion. With TRAIN_AND_DEV no split
    is left to choose the best weights, so only the last step is evaluated and its weights are kept.

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

    others = [trial_seed(config.seed, number) for number in range(1, seeds)]
    return [config, *(config.replace(seed=seed) for seed in others)]


def train_seeds(
    corpus: Corpus,
    configs: Sequence[Config],
    device: str,
    workers: int | None,
    *,
    watch: str = "dev_loss",
    model: ModelClass | None = None,
) -> list[TrainResult]:
    """Train configs on a new engine; returns their results in the same order.

    Args:
        device, workers: the values of --device and --workers.
        watch: as in `train_all`.
        model: class of the user's model; None for the MLP.

    Raises:
        UserError, Diverged, EngineFailed: as in `train_all`.
    """
    slots = count_slots(device, workers, len(configs), model)
    largest = Envelope.around(*configs)
    with closing(make_engine(device, corpus, slots, largest, model)) as engine:
        return train_all(engine, configs, watch=watch)


def train_all(
    engine: Engine, configs: Sequence[Config], *, watch: str = "dev_loss"
) -> list[TrainResult]:
    """Train configs in the slots of an engine; returns their results in the same order.

    Args:
        watch: the loss that the progress shows, dev_loss or minibatch_loss.

    Raises:
        UserError: a config does not fit the engine.
        Diverged: a loss was not finite.
        EngineFailed: the device failed more than MAX_RETRIES times while it trained one of them.
    """
    results: dict[int, TrainResult] = {}
    waiting = deque(range(len(configs)))
    running: dict[int, int] = {}  # slot -> index of its config
    failures: Counter[int] = Counter()

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
    """Show progress on stderr: a bar per seed on a terminal, else a line for each finished seed.

    Yields:
        A function to call with the index of a config and its new evaluation.
    """
    console = make_console(stderr=True)

    def loss(point: EvalPoint) -> str:
        return f"{watch.removesuffix('_loss')} {getattr(point, watch):.4f}"

    if not console.is_terminal:

        def print_line(number: int, point: EvalPoint) -> None:
            if point.step == configs[number].max_steps:
                line = f"seed {configs[number].seed}: step {point.step:,}, {loss(point)}"
                print(line, file=sys.stderr)

        yield print_line
        return

    with Progress(console=console) as bars:
        tasks = [bars.add_task(f"seed {config.seed}", total=config.max_steps) for config in configs]

        def move_bar(number: int, point: EvalPoint) -> None:
            text = f"seed {configs[number].seed}, {loss(point)}"
            bars.update(tasks[number], completed=point.step, description=text)

        yield move_bar
