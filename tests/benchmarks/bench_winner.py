"""Compares rules that choose the best config of a study, by how far its true loss is from the best.

Each simulated study draws configs from curves_five.csv.gz, whose dev loss counts as the true loss.
A training adds noise of --sd. The race of the project gives the best configs seed repeats, and each
rule chooses a config from the same losses.

    python -m tests.benchmarks.bench_winner [--studies 200] [--sd 0.005]
"""

from __future__ import annotations

import argparse
import operator
from pathlib import Path

import numpy as np
import optuna
import pandas as pd

from makemore.config import Config
from makemore.model import n_params
from studies.harness.store.winner.noise import measure_noise
from studies.harness.store.winner.race import plan_repeats
from studies.harness.store.winner.winner import choose_winner
from tests.studies.synthetic import PARAMS, make_study, make_trial

CURVES = Path(__file__).with_name("curves_five.csv.gz")
SIZES = (32, 100, 300)  # trials of a study
VOCAB = 27  # characters of the names, with the boundary


def read_configs() -> tuple[np.ndarray, np.ndarray]:
    """Return the dev loss and the number of parameters of each config that did not diverge."""
    table = pd.read_csv(CURVES)
    loss = table.filter(regex="^dev_").min(axis=1)
    table, loss = table[loss.notna()], loss[loss.notna()]
    shapes = zip(table.block_size, table.n_embd, table.n_hidden, strict=True)
    configs = [Config(block_size=b, n_embd=e, n_hidden=h) for b, e, h in shapes]
    sizes = [n_params(config, VOCAB) for config in configs]
    return loss.to_numpy(), np.array(sizes)


def simulate(
    loss: np.ndarray, size: np.ndarray, sd: float, rng: np.random.Generator
) -> tuple[dict[str, int], int]:
    """Run one study; returns the trial that each rule chooses, and the number of seed repeats.

    Args:
        loss: (N,) true dev losses of the trials.
        size: (N,) their numbers of parameters.
        sd: standard deviation of the noise between seeds.
    """
    own = loss + rng.normal(0, sd, len(loss))
    trials = [make_trial(PARAMS, [value], n_steps=10) for value in own]
    for trial, parameters in zip(trials, size, strict=True):
        summary = trial.user_attrs["summary"]
        metrics = {"seconds": 1.0, "n_params": float(parameters)}
        trial.set_user_attr("summary", {**summary, "metrics": metrics})
    study = make_study(trials)
    while planned := plan_repeats(study.get_trials(deepcopy=False), None):
        repeated = [(number, loss[number] + rng.normal(0, sd)) for number in planned]
        study.add_trials([make_trial(PARAMS, [x], n_steps=10, repeat_of=n) for n, x in repeated])

    ended = study.get_trials(deepcopy=False)
    noise = measure_noise(ended)
    winner = choose_winner(ended, noise)
    assert noise is not None and winner is not None
    best = noise.groups[0]
    limit = best.mean + noise.sd / np.sqrt(best.n)  # the rule of Breiman et al. 1984
    close = [group for group in noise.groups if group.mean <= limit]
    tied = [group for group in noise.groups if not group.differs]
    size_of = operator.attrgetter("n_params")
    chosen = {
        "lowest loss of one seed": int(own.argmin()),
        "lowest mean of the repeats (ours)": winner.number,
        "smallest within one standard error of it": min(close, key=size_of).trial,
        "smallest tied with it at 95%": min(tied, key=size_of).trial,
    }
    return chosen, len(ended) - len(trials)


def main(n_studies: int, sd: float) -> None:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    losses, sizes = read_configs()
    rng = np.random.default_rng(0)
    print("| trials | repeats | rule | above the best config, nats | parameters |")
    print("|---|---|---|---|---|")
    for n_trials in SIZES:
        regrets: dict[str, list[float]] = {}
        chosen_sizes: dict[str, list[int]] = {}
        repeats = 0
        for _ in range(n_studies):
            drawn = rng.choice(len(losses), n_trials, replace=False)
            loss, size = losses[drawn], sizes[drawn]
            chosen, n_repeats = simulate(loss, size, sd, rng)
            repeats += n_repeats
            for rule, number in chosen.items():
                regrets.setdefault(rule, []).append(float(loss[number] - loss.min()))
                chosen_sizes.setdefault(rule, []).append(int(size[number]))
        for rule, values in regrets.items():
            regret, size_mean = np.mean(values), np.mean(chosen_sizes[rule])
            mean_repeats = repeats / n_studies
            print(f"| {n_trials} | {mean_repeats:.0f} | {rule} | {regret:.4f} | {size_mean:,.0f} |")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=200)
    parser.add_argument("--sd", type=float, default=0.005)
    args = parser.parse_args()
    main(args.studies, args.sd)
