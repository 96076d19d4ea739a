"""Makes the tables of bench_search.py: learning curves of complete trainings, without a pruner.

The second third of the trials are TPE's proposals from all results so far (`by_tpe`), so that the
table is dense near the best. The first and the last third are points of a Sobol sequence over the
space. A curve has POINTS evaluations of the weights (`dev_1` to `dev_20`), and of their running
average as the engine computes it for `ema = 0.1` (`average_1` to `average_20`), rounded to four
decimals.

curves_five.csv.gz has the space of studies/mlp.py, and 5,000 steps a trial. learning_curves.csv.gz
has 300 trials of the first space of studies/record.py (n_hidden up to 1,024), and 10,000 steps; an
earlier version of this script made it.

Ctrl-C keeps the trials that ended. The same command continues with the missing ones.

    python tests/benchmarks/make_curves.py --space five [--trials 3000] [--steps 5000]
    python tests/benchmarks/make_curves.py --space wide [--trials 800] [--steps 10000]
"""

from __future__ import annotations

import argparse
import math
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event, Lock
from typing import Any

import optuna
import pandas as pd
from optuna.trial import TrialState
from scipy.stats.qmc import Sobol

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines.base import EvalPoint
from makemore.engines.cpu.slot import Slot
from studies import mlp, record
from studies.harness.search.samplers.spread import value_at
from studies.harness.search.spaces import distributions

POINTS = 20  # evaluations of a curve, evenly spaced
EMA = 0.1
SAVE_EVERY = 50  # trials
SPACES = {"five": (mlp.space, mlp.BASE), "wide": (record.space, record.BASE)}
TRIALS = {"five": 3000, "wide": 800}
STEPS = {"five": 5000, "wide": 10_000}


class Stopped(Exception):
    """Ctrl-C came during a training."""


def learning_curves(config: Config, corpus: Corpus, stop: Event) -> dict[str, float]:
    """Train one config.

    Returns:
        Dev losses in nats, `dev_i` and `average_i` for i from 1 to POINTS; none after divergence.

    Raises:
        Stopped: `stop` was set.
    """
    slot = Slot(config, corpus)
    average = slot.eval_weights
    curves = {}
    for point in range(1, POINTS + 1):
        if stop.is_set():
            raise Stopped
        slot.eval_weights = average
        outcome = slot.train()
        if not isinstance(outcome, EvalPoint):
            break
        slot.eval_weights = slot.weights
        curves[f"dev_{point}"] = round(slot.evaluate(), 4)
        curves[f"average_{point}"] = round(outcome.dev_loss, 4)
        assert slot.steps_done == point * config.eval_interval
    return curves


class Table:
    """The trials that ended, in a CSV file, and the sampler that learns from them.

    Args:
        space: a key of SPACES.
        trials: in total, those of earlier runs included.
        steps: optimizer steps of each trial.
    """

    def __init__(self, space: str, trials: int, steps: int) -> None:
        self.path = Path(__file__).with_name(f"curves_{space}.csv.gz")
        self._space, base = SPACES[space]
        self._base = base.replace(max_steps=steps, eval_interval=steps // POINTS, ema=EMA)
        self._distributions = distributions(self._space, self._base)
        self._by_tpe = range(trials // 3, 2 * trials // 3)
        self._points = Sobol(len(self._distributions), rng=0).random_base2(16)
        self._lock = Lock()
        self._rows: list[dict[str, Any]] = []
        self._asked: dict[int, optuna.Trial] = {}
        self._study = optuna.create_study(sampler=optuna.samplers.TPESampler(seed=0))
        if self.path.exists():
            for row in pd.read_csv(self.path).to_dict("records"):
                self._learn({str(name): value for name, value in row.items()})
        done = {row["number"] for row in self._rows}
        self.missing = [number for number in range(trials) if number not in done]

    def is_by_tpe(self, number: int) -> bool:
        """Return whether TPE proposes a trial."""
        return number in self._by_tpe

    def ask(self, number: int) -> tuple[dict[str, Any], Config]:
        """Return the parameters and the config of a trial."""
        with self._lock:
            if not self.is_by_tpe(number):
                shares = zip(self._distributions.items(), self._points[number], strict=True)
                params = {name: value_at(kind, share) for (name, kind), share in shares}
            else:
                self._asked[number] = self._study.ask(self._distributions)
                params = self._asked[number].params
        trial: Any = optuna.trial.FixedTrial(params)
        return params, self._space(trial, self._base).replace(seed=number)

    def tell(self, number: int, params: dict[str, Any], curves: dict[str, float]) -> None:
        """Add a trial that ended."""
        with self._lock:
            if number in self._asked:  # `_learn` adds it again, with its result
                self._study.tell(self._asked.pop(number), state=TrialState.FAIL)
            self._learn(
                {"number": number, "by_tpe": int(self.is_by_tpe(number)), **params, **curves}
            )
            if len(self._rows) % SAVE_EVERY == 0:
                self.save()

    def save(self) -> None:
        """Write the table, and print the number of its trials."""
        columns = ["number", "by_tpe", *self._distributions]
        columns += [f"{kind}_{i + 1}" for kind in ("dev", "average") for i in range(POINTS)]
        frame = pd.DataFrame(self._rows, columns=columns).sort_values("number")
        part = self.path.with_suffix(".part")
        frame.to_csv(part, index=False, compression="gzip")
        part.replace(self.path)
        print(f"{len(frame)} trials, lowest {frame.filter(like='average').min().min()}", flush=True)

    def _learn(self, row: dict[str, Any]) -> None:
        self._rows.append(row)
        losses = [row.get(f"average_{i + 1}", math.nan) for i in range(POINTS)]
        seen = [loss for loss in losses if math.isfinite(loss)]
        ended = len(seen) == POINTS
        self._study.add_trial(
            optuna.trial.create_trial(
                state=TrialState.COMPLETE if ended else TrialState.PRUNED,
                value=min(seen) if ended else None,
                params={name: row[name] for name in self._distributions},
                distributions=self._distributions,
            )
        )


def main(space: str, trials: int, steps: int, threads: int) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    corpus = load_corpus(None)
    table = Table(space, trials, steps)
    stop = Event()

    def train_one(number: int) -> None:
        if not stop.is_set():
            params, config = table.ask(number)
            table.tell(number, params, learning_curves(config, corpus, stop))

    with ThreadPoolExecutor(threads) as pool:
        try:
            for ended in [pool.submit(train_one, number) for number in table.missing]:
                ended.result()
        except KeyboardInterrupt:
            stop.set()
    table.save()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--space", choices=SPACES, default="five")
    parser.add_argument("--trials", type=int, help="in total (default: 3000, wide: 800)")
    parser.add_argument("--steps", type=int, help="of each trial (default: 5000, wide: 10000)")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    main(
        args.space,
        args.trials or TRIALS[args.space],
        args.steps or STEPS[args.space],
        args.threads,
    )
