"""Measures the CPU engine: steps a second, in one thread.

The peers are the lecture's loop in torch and the same loop in JAX. Each round measures every
contender once, so that other load affects all; medians over the rounds are printed. Run it on a
quiet machine; it takes about two minutes. Environment variables that select an older OpenBLAS
kernel are removed for this process, except with --pinned. They affect torch and JAX only: the
CPU engine uses no BLAS. The script then measures two slots, an evaluation, and the compilation
of the kernel.

    python tests/benchmarks/bench_trainer.py [--rounds 5] [--seconds 0.4] [--pinned]
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

PINS = ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE")
ONE_THREAD = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    "XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1",
}
# BLAS reads the environment when it loads.
if __name__ == "__main__" and os.environ.get("MAKEMORE_BENCH") != "ready":
    environment = {**os.environ, **ONE_THREAD, "MAKEMORE_BENCH": "ready"}
    if "--pinned" not in sys.argv:
        environment = {name: value for name, value in environment.items() if name not in PINS}
    os.execve(sys.executable, [sys.executable, *sys.argv], environment)

import numpy as np  # noqa: E402
import torch  # noqa: E402
import torch.nn.functional as F  # noqa: E402
from threadpoolctl import threadpool_info, threadpool_limits  # noqa: E402

from makemore.config import Config  # noqa: E402
from makemore.data import Corpus, load_corpus  # noqa: E402
from makemore.engines.cpu.engine import CpuEngine  # noqa: E402
from makemore.engines.cpu.slot import Slot  # noqa: E402
from makemore.model import MLP  # noqa: E402

ROWS = {
    "block 3, embedding 10, hidden 200, batch 32, SGD": Config(init="kaiming"),
    "  the same, AdamW": Config(init="kaiming", optimizer="adamw", lr=1e-3),
    "  the same, batch 256, SGD": Config(init="kaiming", batch_size=256),
    "  the same, batch 256, AdamW": Config(
        init="kaiming", batch_size=256, optimizer="adamw", lr=1e-3
    ),
    "block 8, embedding 24, hidden 400, batch 256, SGD": Config(
        init="kaiming", block_size=8, n_embd=24, n_hidden=400, batch_size=256
    ),
}
Steps = Callable[[int], object]  # trains n steps, and returns when they are done


def lecture_loop(config: Config, corpus: Corpus) -> Steps:
    """Return the lecture's training loop, line by line, with autograd.

    Its update is p.data += -lr * p.grad for both optimizers.
    """
    X, Y = corpus.train.tensors(config.block_size)
    model = MLP(config, len(corpus.vocab))
    C, W1, b1, W2, b2 = parameters = list(model.parameters())
    width = config.block_size * config.n_embd

    def steps(n: int) -> None:
        for _ in range(n):
            ix = torch.randint(0, X.shape[0], (config.batch_size,))
            emb = C[X[ix]]
            h = torch.tanh(emb.view(-1, width) @ W1 + b1)
            logits = h @ W2 + b2
            loss = F.cross_entropy(logits, Y[ix])
            for p in parameters:
                p.grad = None
            loss.backward()
            for p in parameters:
                assert p.grad is not None
                p.data += -config.lr * p.grad

    return steps


def jax_loop(config: Config, corpus: Corpus) -> Steps:
    """Return the same loop in JAX: one jitted scan over all steps, with rows drawn before it.

    AdamW is written out, since JAX has no optimizers.
    """
    import jax
    import jax.numpy as jnp

    train = corpus.train
    X = jnp.asarray(train.contexts(config.block_size), jnp.int32)
    Y = jnp.asarray(train.targets, jnp.int32)
    start = [jnp.asarray(p.detach().numpy()) for p in MLP(config, len(corpus.vocab)).parameters()]
    zeros = [jnp.zeros_like(p) for p in start]

    def loss(parameters: list, rows: jax.Array) -> jax.Array:
        C, W1, b1, W2, b2 = parameters
        h = jnp.tanh(C[X[rows]].reshape(len(rows), -1) @ W1 + b1)
        logits = h @ W2 + b2
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), Y[rows][:, None], 1).mean()

    def step(state: tuple, rows: jax.Array) -> tuple[tuple, None]:
        p, m, v, n = state
        g = jax.grad(loss)(p, rows)
        if config.optimizer == "sgd":
            return ([a - config.lr * b for a, b in zip(p, g, strict=True)], m, v, n + 1), None
        m = [0.9 * a + 0.1 * b for a, b in zip(m, g, strict=True)]
        v = [0.999 * a + 0.001 * b * b for a, b in zip(v, g, strict=True)]
        c = 1 / (1 - 0.9**n)
        d = 1 / (1 - 0.999**n)
        p = [
            a - config.lr * c * b / (jnp.sqrt(e * d) + 1e-8)
            for a, b, e in zip(p, m, v, strict=True)
        ]
        return (p, m, v, n + 1), None

    def train_steps(state: tuple, n: int) -> tuple:
        rows = jax.random.randint(jax.random.PRNGKey(0), (n, config.batch_size), 0, len(X))
        return jax.lax.scan(step, state, rows)[0]

    compiled = jax.jit(train_steps, static_argnums=1)
    state = (start, zeros, zeros, jnp.float32(1))
    return lambda n: jax.block_until_ready(compiled(state, n))


def kernel_loop(config: Config, corpus: Corpus) -> Steps:
    return Slot(config, corpus).run


def rate(steps: Steps, n: int) -> float:
    """Return the steps a second of one call."""
    started = time.perf_counter()
    steps(n)
    return n / (time.perf_counter() - started)


def suitable_steps(steps: Steps, seconds: float) -> int:
    """Return how many steps take about `seconds`.

    Each number of steps runs once before it is timed, because JAX compiles for each number.
    """
    n = 100
    for _ in range(2):
        steps(n)
        n = max(100, int(rate(steps, n) * seconds))
    steps(n)
    return n


def compare(corpus: Corpus, rounds: int, seconds: float) -> None:
    """Print steps a second: medians over rounds of about `seconds` for each contender."""
    contenders: dict[str, Callable[[Config, Corpus], Steps]] = {
        "lecture": lecture_loop,
        "engine": kernel_loop,
    }
    try:
        import jax  # noqa: F401

        contenders["jax"] = jax_loop
    except ImportError:
        print("JAX is not installed (pip install -e '.[bench]'): its column is left out.")
    print(
        f"\n{'steps/s: median (best)':50s}" + "".join(f"{name:>18s}" for name in contenders),
        "  engine / others",
    )
    for row, config in ROWS.items():
        runs = {name: make(config, corpus) for name, make in contenders.items()}
        sizes = {name: suitable_steps(steps, seconds) for name, steps in runs.items()}
        rates: dict[str, list[float]] = {name: [] for name in runs}
        for _ in range(rounds):
            for name, steps in runs.items():
                rates[name].append(rate(steps, sizes[name]))
        middle = {name: statistics.median(values) for name, values in rates.items()}
        cells = "".join(
            f"{middle[name]:>9,.0f} {f'({max(values):,.0f})':8s}" for name, values in rates.items()
        )
        ratios = ", ".join(
            f"{name} {middle['engine'] / middle[name]:.1f}" for name in middle if name != "engine"
        )
        print(f"{row:50s}{cells}   {ratios}", flush=True)


def two_slots(corpus: Corpus, rounds: int) -> None:
    """Print how much faster two models train on two cores than one after the other."""
    if (os.cpu_count() or 1) < 2:
        print("two slots: this machine has one core")
        return
    for row, config in list(ROWS.items())[::4]:
        n = 40_000 if config.batch_size == 32 else 2_000
        config = config.replace(max_steps=n, eval_interval=n, schedule="constant")
        ratios = []
        for _ in range(rounds):
            times = []
            for slots in (1, 2):
                engine = CpuEngine(corpus, slots)
                for _ in range(slots):
                    engine.admit(config)
                started = time.perf_counter()
                while engine.advance():
                    pass
                times.append(time.perf_counter() - started)
                engine.close()
            ratios.append(2 * times[0] / times[1])
        print(f"two slots on two cores, {row.strip()}: {statistics.median(ratios):.2f} x one slot")


def evaluation(corpus: Corpus, rounds: int) -> None:
    """Print the time of an evaluation of the dev split.

    The peer is the two matrix products of a plain evaluation over every example.
    """
    for row, config in list(ROWS.items())[::4]:
        slot = Slot(config, corpus)
        emb = torch.randn(len(corpus.dev), config.block_size * config.n_embd)
        ours, products = [], []
        with torch.no_grad():
            for _ in range(rounds + 1):
                started = time.perf_counter()
                slot.evaluate()
                ours.append(time.perf_counter() - started)
                started = time.perf_counter()
                _ = (emb @ slot.model.W1) @ slot.model.W2
                products.append(time.perf_counter() - started)
        a, b = (statistics.median(times[1:]) * 1e3 for times in (ours, products))
        print(
            f"evaluation, {row.strip()}: {a:.2f} ms, {a / b:.2f} x the products alone ({b:.2f} ms)"
        )


COMPILE = """
import time
from makemore.config import Config
from makemore.data import load_corpus
from makemore.engines.cpu.slot import Slot
corpus = load_corpus()
started = time.perf_counter()
Slot(Config(), corpus).run(1)
print(time.perf_counter() - started)
"""


def compilation() -> None:
    """Print the seconds from a config to its first step, with and without cached machine code."""
    with tempfile.TemporaryDirectory() as folder:
        environment = {
            **os.environ,
            "NUMBA_CACHE_DIR": folder,
            "PYTHONPATH": str(Path(__file__).parents[2]),
        }
        times = [
            float(
                subprocess.run(
                    [sys.executable, "-c", COMPILE],
                    env=environment,
                    capture_output=True,
                    check=True,
                ).stdout
            )
            for _ in range(2)
        ]
    print(f"first step: {times[0]:.1f} s when the kernel is compiled, {times[1]:.2f} s after that")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=0.4, help="length of a measurement (default: 0.4)"
    )
    parser.add_argument(
        "--pinned",
        action="store_true",
        help="keep the OpenBLAS kernel that the environment selects",
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    corpus = load_corpus()
    np.dot(np.ones((2, 2)), np.ones((2, 2)))
    blas = {
        f"{lib['internal_api']} {lib.get('architecture', '')}"
        for lib in threadpool_info()
        if lib["user_api"] == "blas"
    }
    print(
        f"{platform.platform()}, {os.cpu_count()} cores, {_processor()}; torch {torch.__version__}"
    )
    print(f"BLAS in this process: {', '.join(sorted(blas))}; the engine uses none.")
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    with threadpool_limits(1, user_api="blas"):
        if cores:  # one core for all contenders, so that none is moved
            os.sched_setaffinity(0, cores[-1:])
        compare(corpus, args.rounds, args.seconds)
        if cores:
            os.sched_setaffinity(0, cores)
        print()
        two_slots(corpus, args.rounds)
        evaluation(corpus, args.rounds)
        compilation()


def _processor() -> str:
    names = [
        line
        for line in Path("/proc/cpuinfo").read_text().splitlines()
        if line.startswith("model name")
    ]
    return names[0].split(":")[1].strip() if names else platform.processor()


if __name__ == "__main__":
    main()
