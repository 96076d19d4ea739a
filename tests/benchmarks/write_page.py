"""Run the benchmarks and write docs/benchmarks.md: machine, date, versions, and what each printed.

    python tests/benchmarks/write_page.py [NAME ...]

With names, only these benchmarks run, and the other sections of the page stay unchanged. Run it on
a quiet machine: most figures compare two programs that run in turn, but load makes them noisy.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import platform
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PAGE = ROOT / "docs" / "benchmarks.md"
PACKAGES = ("torch", "numba", "numpy", "optuna", "mlflow", "jax")


@dataclass(frozen=True)
class Benchmark:
    """One section of the page.

    Attributes:
        name: file name without `bench_` and `.py`.
        title: heading of the section.
        about: the two sides of the comparison, in one or two sentences.
        flags: flags of the script.
        picture: file in docs/ that the script writes, or "".
    """

    name: str
    title: str
    about: str
    flags: tuple[str, ...] = ()
    picture: str = ""

    @property
    def command(self) -> str:
        """The command that produces the section's output."""
        return " ".join(["python", f"tests/benchmarks/bench_{self.name}.py", *self.flags])


BENCHMARKS = (
    Benchmark(
        "trainer",
        "Training speed of the CPU engine",
        "Steps per second on one core: the lecture's loop in torch, the same loop in JAX "
        "(jit and scan), and the CPU engine. The three take turns.",
    ),
    Benchmark(
        "population",
        "Many models in one step",
        "Model-steps per second of the batched engine against one model in eager torch. "
        "The batched engine is meant for GPUs; it was not run on a GPU.",
        ("--device", "cpu"),
    ),
    Benchmark(
        "study",
        "A whole study",
        "16 trials of 5,000 steps with all stores, artifacts and the report, against a plain "
        "script with Optuna and MLflow around the lecture's loop. Both are timed as processes.",
    ),
    Benchmark(
        "target",
        "Time to a dev loss of 2.07",
        "Seconds from the start of the process until a trial reaches the loss, over 5 seeds: "
        "studies/mlp.py against the plain script with the same space.",
    ),
    Benchmark(
        "overhead",
        "Cost of a trial without its training",
        "Coordinator, Optuna, MLflow and files, with an engine that trains nothing.",
        ("--picture", "docs/overhead.png"),
        "overhead.png",
    ),
    Benchmark(
        "report",
        "The report of a large study",
        "report.py and compare.py as processes. The columns from verdicts on are CPU seconds of "
        "the same work at the end of a launch.",
    ),
    Benchmark(
        "ui",
        "A large study in the MLflow UI",
        "The saved views of a study in a headless Chromium. MLflow sorts all runs and loads the "
        'best hundred; "Load more" loads a hundred more. Its charts draw the loaded runs only. To '
        "see others, filter (for example params.block_size = '5') or sort by another column. The "
        "report has all trials.",
    ),
    Benchmark(
        "search",
        "Pruners and samplers",
        "Searches replayed over stored learning curves. Costs are counted in whole trials: 1 is "
        "the number of steps of one trial. weights: a study evaluates the weights; average: their "
        "running average, as studies/mlp.py does.",
    ),
    Benchmark(
        "defaults",
        "The default search",
        "studies/mlp.py with and without its pruner, all stores on. A cost of 1 is the number of "
        "steps of one trial. best dev loss is the lowest of 1,000 single trainings, which is "
        "partly luck; confirmed is the mean of the winner over its seed repeats.",
        ("--confirm",),
    ),
)


def main(names: list[str]) -> None:
    """Run the benchmarks and write the page after each."""
    sections = _read_sections()
    for benchmark in BENCHMARKS:
        if names and benchmark.name not in names:
            continue
        print(f"{benchmark.command} ...", file=sys.stderr, flush=True)
        sections[benchmark.name] = _run(benchmark)
        _write(sections)


def _run(benchmark: Benchmark) -> str:
    """Run one benchmark; return its section."""
    command = [sys.executable, str(HERE / f"bench_{benchmark.name}.py"), *benchmark.flags]
    began = time.perf_counter()
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    minutes = (time.perf_counter() - began) / 60
    if done.returncode:
        sys.exit(f"{benchmark.command} failed:\n{done.stderr}")
    picture = f"\n![{benchmark.title}]({benchmark.picture})\n" if benchmark.picture else ""
    versions = ", ".join(f"{name} {version}" for name, version in _versions().items())
    return f"""## {benchmark.title}

{benchmark.about}

`{benchmark.command}`, {time.strftime("%Y-%m-%d")}, {minutes:.1f} minutes, {_machine()}; {versions}.

{_as_markdown(done.stdout)}
{picture}"""


def _as_markdown(output: str) -> str:
    """Keep Markdown tables; put everything else into code blocks."""
    blocks = re.split(r"\n\s*\n", output.strip("\n"))
    parts = []
    for block in blocks:
        is_table = all(line.startswith("|") for line in block.splitlines())
        is_sentence = "\n" not in block and not re.search(r"\s{3,}", block)
        parts.append(block if is_table or is_sentence else f"```\n{block}\n```")
    return "\n\n".join(parts)


def _machine() -> str:
    cores = os.cpu_count()
    try:
        models = re.findall(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except OSError:
        models = []
    model = models[0] if models else platform.processor() or platform.machine()
    return f"{cores} cores of {model}, Python {platform.python_version()}"


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "absent"
    return found


def _read_sections() -> dict[str, str]:
    """Return the sections of the page that exists, by benchmark."""
    if not PAGE.exists():
        return {}
    found = re.split(r"(?m)^(?=## )", PAGE.read_text(encoding="utf-8"))[1:]
    titles = {benchmark.title: benchmark.name for benchmark in BENCHMARKS}
    sections = {}
    for section in found:
        name = titles.get(section.splitlines()[0].removeprefix("## "))
        if name:
            sections[name] = section.rstrip("\n") + "\n"
    return sections


def _write(sections: dict[str, str]) -> None:
    head = """# Benchmarks

`make bench` runs everything on this page and writes it. Each section names its command, date,
machine and versions. Compare ratios, not absolute times: machines differ.
"""
    ordered = [sections[b.name] for b in BENCHMARKS if b.name in sections]
    PAGE.write_text("\n".join([head, *ordered]), encoding="utf-8")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", help=", ".join(b.name for b in BENCHMARKS))
    main(parser.parse_args().names)
