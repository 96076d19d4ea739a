"""Makes learning_curves.csv.gz for bench_search.py: learning curves of complete trainings.

It trains a few hundred configurations of the record search, in about half an hour on two cores.
Most are random; the rest are TPE's proposals from these results, so that the table is dense near
the best.

    python tests/benchmarks/make_curves.py [--random 266] [--by-tpe 34] [--steps 10000]
"""

from __future__ import annotations

import argparse
import math
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Lock
from typing import Any

import optuna
import pandas as pd

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines.base import DIVERGED_LOSS
from makemore.engines.cpu.slot import Slot
from studies.record import space as eight_parameters

TABLE = Path(__file__).with_name("learning_curves.csv.gz")
POINTS = 20  # evaluations of a curve, evenly spaced
STRIDE = 10  # steps between two updates of the averaged weights
SPAN = 0.1  # the averaged weights' memory, as a share of the steps done


def learning_curves(config: Config, corpus: Corpus) -> tuple[list[float], list[float], float]:
    """Train one config.

    Returns:
        Dev loss of the weights and of their running average at POINTS steps, nan after
        divergence; and the seconds of the training without the average.
    """
    slot = Slot(config, corpus)
    average = slot.weights.flat.copy()
    curve = [math.nan] * POINTS
    averaged = [math.nan] * POINTS
    began = time.perf_counter()
    spent = 0.0
    for point in range(POINTS):
        end = (point + 1) * config.max_steps // POINTS
        while slot.steps_done < end:
            loss = slot.run(min(STRIDE, end - slot.steps_done))
            if not math.isfinite(loss):
                return curve, averaged, time.perf_counter() - began
            away = time.perf_counter()
            average += (STRIDE / (SPAN * slot.steps_done + STRIDE)) * (slot.weights.flat - average)
            spent += time.perf_counter() - away
        curve[point] = slot.evaluate()
        if not curve[point] < DIVERGED_LOSS:
            curve[point] = math.nan
            break
        away = time.perf_counter()
        weights = slot.weights.flat.copy()
        slot.weights.flat[:] = average
        averaged[point] = slot.evaluate()
        slot.weights.flat[:] = weights
        spent += time.perf_counter() - away
    return curve, averaged, time.perf_counter() - began - spent


def main(at_random: int, by_tpe: int, steps: int, threads: int) -> None:
    corpus = load_corpus(None)
    lock = Lock()
    rows: list[dict[str, Any]] = []
    n_configs = at_random + by_tpe
    base = Config(
        optimizer="adamw", schedule="cosine", init="kaiming", max_steps=steps, eval_interval=steps
    )
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    informed = optuna.samplers.TPESampler(
        seed=1, n_startup_trials=0, multivariate=True, constant_liar=True
    )

    def train_one(number: int) -> None:
        with lock:
            if number == at_random:
                study.sampler = informed
            trial = study.ask()
            config = eight_parameters(trial, base).replace(seed=number)
        curve, averaged, seconds = learning_curves(config, corpus)
        row: dict[str, Any] = {"number": number, **trial.params, "seconds": round(seconds, 3)}
        row |= {f"dev_{i + 1}": round(loss, 4) for i, loss in enumerate(curve)}
        row |= {f"average_{i + 1}": round(loss, 4) for i, loss in enumerate(averaged)}
        with lock:
            best = min((loss for loss in curve if not math.isnan(loss)), default=DIVERGED_LOSS)
            study.tell(trial, best)
            rows.append(row)
            if len(rows) % 20 == 0 or len(rows) == n_configs:
                pd.DataFrame(rows).sort_values("number").to_csv(TABLE, index=False)
                print(f"{len(rows)} of {n_configs}, lowest {study.best_value:.4f}", flush=True)

    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(train_one, range(n_configs)))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--random", type=int, default=266)
    parser.add_argument("--by-tpe", type=int, default=34)
    parser.add_argument("--steps", type=int, default=10_000)
    parser.add_argument("--threads", type=int, default=2)
    args = parser.parse_args()
    main(args.random, args.by_tpe, args.steps, args.threads)
