"""Measures the batched engine: model-steps a second for different numbers of models.

The peer is one model in the lecture's loop under autograd, on the same device. All models have
the lecture's size (block 3, embedding 10, hidden 200, batch 32). Engine and peer take turns, and
the best of the rounds counts, so that other load on the machine affects both. Only training
steps are timed: no evaluations, no admissions, no capture of CUDA graphs.

    python tests/benchmarks/bench_population.py [--device cpu|cuda] [--optimizer sgd|adamw]
"""

from __future__ import annotations

import argparse
import platform
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F

from makemore.config import Config
from makemore.data import Corpus, load_corpus
from makemore.engines import Envelope, resolve_device
from makemore.engines.batched.layout import Layout
from makemore.engines.batched.plan import Parts, TrainSet
from makemore.engines.batched.stack import Stack, State, bytes_per_slot
from makemore.model import MLP

SIZES = {"cpu": [1, 16, 64], "cuda": [1, 16, 256, 1024, 4096]}
PROJECTED_MODELS, PROJECTED_STEPS = 1_000, 200_000
ROUNDS = 5


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: torch.device) -> float:
    wait(device)
    begun = time.perf_counter()
    work()
    wait(device)
    return time.perf_counter() - begun


def eager_model(corpus: Corpus, config: Config, device: torch.device) -> Callable[[int], None]:
    """Return a function that trains one model for n steps, as the lecture does."""
    X, Y = (x.to(device) for x in corpus.train.tensors(config.block_size))
    model = MLP(config, len(corpus.vocab))
    C, W1, b1, W2, b2 = parameters = [
        p.detach().to(device).requires_grad_() for p in model.parameters()
    ]
    adamw = torch.optim.AdamW(parameters, lr=config.lr) if config.optimizer == "adamw" else None

    def run(steps: int) -> None:
        for _ in range(steps):
            rows = torch.randint(0, len(Y), (config.batch_size,), device=device)
            h = torch.tanh(C[X[rows]].flatten(1) @ W1 + b1)
            loss = F.cross_entropy(h @ W2 + b2, Y[rows])
            for parameter in parameters:
                parameter.grad = None
            loss.backward()
            if adamw is not None:
                adamw.step()
                continue
            for parameter in parameters:
                assert parameter.grad is not None
                parameter.data -= config.lr * parameter.grad

    return run


def population(
    corpus: Corpus, configs: list[Config], device: torch.device
) -> Callable[[int], object]:
    """Return a function that trains all models for n steps in one stack."""
    layout = Layout(Envelope.around(*configs), len(corpus.vocab))
    stack = Stack(len(configs), layout, TrainSet(corpus.train, device), torch.float32)
    for row, config in enumerate(configs):
        stack.load(row, config, 0, State.fresh(layout.pack(MLP(config, len(corpus.vocab)))), None)
    parts = Parts.of(configs)

    def run(steps: int) -> None:
        stack.prepare(steps, parts)
        stack.run(steps, parts, lambda: False)

    return run


def measure(corpus: Corpus, base: Config, n: int, device: torch.device) -> tuple[float, float]:
    """Return model-steps a second of n models in one stack, and of one eager model."""
    ours = population(corpus, [base.replace(seed=seed) for seed in range(n)], device)
    eager = eager_model(corpus, base, device)
    steps = 320 if device.type == "cuda" else max(32, 2048 // n // 16 * 16)
    best_ours = best_eager = 0.0
    for round_ in range(ROUNDS + 1):
        rate_ours = n * steps / seconds(lambda: ours(steps), device)
        rate_eager = 500 / seconds(lambda: eager(500), device)
        if round_ > 0:  # the first round warms up: caches, libraries, graphs
            best_ours, best_eager = max(best_ours, rate_ours), max(best_eager, rate_eager)
    return best_ours, best_eager


def processor() -> str:
    """Return the name of the CPU."""
    try:
        with open("/proc/cpuinfo") as lines:
            return next(
                line.split(":")[1].strip() for line in lines if line.startswith("model name")
            )
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=SIZES, default="cpu")
    parser.add_argument("--optimizer", choices=["sgd", "adamw"], default="sgd")
    args = parser.parse_args()
    try:
        device = resolve_device(args.device)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
    torch.set_num_threads(1)
    corpus = load_corpus()
    base = Config(optimizer=args.optimizer, lr=0.1 if args.optimizer == "sgd" else 1e-3)
    name = (
        torch.cuda.get_device_name(device)
        if device.type == "cuda"
        else f"{processor()}, one thread"
    )
    slot = bytes_per_slot(Envelope.around(base), len(corpus.vocab))
    print(f"{name}; torch {torch.__version__}; {args.optimizer}; {slot / 1e6:.2f} MB a model")
    print(f"{'models':>7} {'model-steps/s':>14} {'one eager model':>16} {'times':>7}")
    rates = {}
    for n in SIZES[device.type]:
        rates[n], eager = measure(corpus, base, n, device)
        print(f"{n:7,} {rates[n]:14,.0f} {eager:16,.0f} {rates[n] / eager:7.1f}", flush=True)
    if device.type == "cuda":
        minutes = PROJECTED_MODELS * PROJECTED_STEPS / rates[1024] / 60
        work = f"{PROJECTED_MODELS:,} configurations x {PROJECTED_STEPS:,} steps"
        print(f"{work} at the rate of 1,024: {minutes:.1f} min")


if __name__ == "__main__":
    main()
