"""The peer of bench_study.py and bench_target.py: a simple search, written in an afternoon.

It searches five parameters with Optuna in SQLite and nested MLflow runs in SQLite through the
fluent API. It trains with the lecture's loop in torch under autograd, one trial after another,
with torch's default number of threads, takes the dev loss every 500 steps, and saves the model
as an artifact.

    python tests/benchmarks/plain_study.py [--trials 16] [--steps 5000] [--prune]
"""

from __future__ import annotations

import argparse
import json
import os
import random
import time
from pathlib import Path

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")

import mlflow
import optuna
import torch
import torch.nn.functional as F

NAMES = Path(__file__).resolve().parents[2] / "makemore" / "names.txt"


def build(
    words: list[str], codes: dict[str, int], block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    X, Y = [], []
    for word in words:
        context = [0] * block_size
        for character in word + ".":
            X.append(context)
            Y.append(codes[character])
            context = [*context[1:], codes[character]]
    return torch.tensor(X), torch.tensor(Y)


def objective(
    trial: optuna.Trial, words: list[str], steps: int, prune: bool, until: float | None
) -> float:
    lr = trial.suggest_float("lr", 1e-3, 1.0, log=True)
    block_size = trial.suggest_int("block_size", 2, 8)
    n_embd = trial.suggest_int("n_embd", 2, 24)
    n_hidden = trial.suggest_int("n_hidden", 50, 300, step=50)
    batch_size = trial.suggest_categorical("batch_size", [32, 64, 128, 256])
    codes = {c: i for i, c in enumerate(["."] + sorted(set("".join(words))))}
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    Xtr, Ytr = build(words[:n1], codes, block_size)
    Xdev, Ydev = build(words[n1:n2], codes, block_size)
    V, K = len(codes), block_size * n_embd
    C = torch.randn(V, n_embd)
    W1, b1 = torch.randn(K, n_hidden) * (5 / 3) / K**0.5, torch.zeros(n_hidden)
    W2, b2 = torch.randn(n_hidden, V) * 0.01, torch.zeros(V)
    parameters = [C, W1, b1, W2, b2]
    for p in parameters:
        p.requires_grad = True

    def logits(X: torch.Tensor) -> torch.Tensor:
        return torch.tanh(C[X].view(len(X), -1) @ W1 + b1) @ W2 + b2

    with mlflow.start_run(run_name=f"trial {trial.number}", nested=True):
        mlflow.log_params(trial.params)
        dev_loss = float("inf")
        for step in range(steps):
            ix = torch.randint(0, len(Xtr), (batch_size,))
            loss = F.cross_entropy(logits(Xtr[ix]), Ytr[ix])
            for p in parameters:
                p.grad = None
            loss.backward()
            rate = lr if step < steps / 2 else lr / 10
            for p in parameters:
                p.data += -rate * p.grad
            if (step + 1) % 500 == 0 or step + 1 == steps:
                with torch.no_grad():
                    dev_loss = F.cross_entropy(logits(Xdev), Ydev).item()
                mlflow.log_metric("train_loss", loss.item(), step=step + 1)
                mlflow.log_metric("dev_loss", dev_loss, step=step + 1)
                trial.report(dev_loss, step + 1)
                if until is not None and dev_loss <= until:
                    trial.study.stop()
                    return dev_loss
                if prune and trial.should_prune():
                    raise optuna.TrialPruned
        torch.save(parameters, "model.pt")
        mlflow.log_artifact("model.pt")
    return dev_loss


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--trials", type=int, default=16)
    parser.add_argument("--steps", type=int, default=5000)
    parser.add_argument("--prune", action="store_true")
    parser.add_argument("--params", type=Path, help="JSON list of parameters to train, in order")
    parser.add_argument("--names", type=Path, default=NAMES)
    parser.add_argument("--seed", type=int, help="seed of the sampler and of torch")
    parser.add_argument("--until", type=float, help="stop at this dev loss")
    parser.add_argument("--timeout", type=float, help="seconds after which no new trial starts")
    args = parser.parse_args()
    words = args.names.read_text().split()
    if args.seed is not None:
        torch.manual_seed(args.seed)
    random.seed(42)
    random.shuffle(words)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("plain")
    sampler = optuna.samplers.TPESampler(seed=args.seed)
    pruner = optuna.pruners.MedianPruner()
    study = optuna.create_study(storage="sqlite:///optuna.db", sampler=sampler, pruner=pruner)
    for params in json.loads(args.params.read_text()) if args.params else []:
        study.enqueue_trial(params)
    spent = [0.0]
    ended = [0.0]

    def timed(trial: optuna.Trial) -> float:
        begun = time.perf_counter()
        try:
            return objective(trial, words, args.steps, args.prune, args.until)
        finally:
            spent[0] += time.perf_counter() - begun
            ended[0] = time.time()

    with mlflow.start_run(run_name="study"):
        study.optimize(timed, n_trials=args.trials, timeout=args.timeout)
        mlflow.log_metric("best_dev_loss", study.best_value)
    print(
        json.dumps(
            {"best_dev_loss": study.best_value, "objective_s": spent[0], "stopped_at": ended[0]}
        )
    )


if __name__ == "__main__":
    main()
