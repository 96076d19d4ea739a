"""Train one model: as a function, and as a command.

python -m makemore.trainer experiments/configs/lecture.toml --lr 0.05
"""

from __future__ import annotations

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import KW_ONLY, dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from makemore.checkpoint import save_checkpoint
from makemore.cli import FAILED, SWITCH, parse_args, plain_errors, stop
from makemore.config import Config, parse_config, read_config
from makemore.data import Corpus, load_corpus
from makemore.engines import (
    Diverged,
    EngineFailed,
    Envelope,
    EvalPoint,
    TrainResult,
    make_engine,
    resolve_device,
)
from makemore.engines.cpu.evaluation import evaluate
from makemore.errors import writing
from makemore.sampling import sample_words

__all__ = ["Diverged", "EngineFailed", "EvalPoint", "TrainResult", "evaluate", "main", "train"]

CHECKPOINTS = Path("mlruns", "checkpoints")  # below the working directory
N_SAMPLES = 20
PROG = "python -m makemore.trainer"


def train(
    config: Config,
    corpus: Corpus,
    *,
    device: str = "auto",
    on_eval: Callable[[EvalPoint], None] | None = None,
) -> TrainResult:
    """Train one model: an engine with one slot.

    The result depends on the config, the corpus and the kind of device only.

    Args:
        device: auto, cpu, cuda, cuda:0 (any index) or mps; auto takes a GPU where there is one.
        on_eval: called after each evaluation. What it raises ends the training and passes through.

    Returns:
        The model with the weights of its best evaluation, and all evaluations.

    Raises:
        UserError: the device is unknown or absent, or the model does not fit it.
        Diverged: a loss was not finite.
        EngineFailed: the device failed.
    """
    with closing(make_engine(device, corpus, 1, Envelope.around(config))) as engine:
        slot = engine.admit(config)
        while outcomes := engine.advance():
            for _, outcome in outcomes:
                if not isinstance(outcome, EvalPoint):
                    raise outcome
                if on_eval is not None:
                    on_eval(outcome)
        return engine.remove(slot)


def _config_flags() -> Any:
    """Return a dataclass with one flag for each field of Config; None keeps the file's value."""
    group = Group("Config, overrides the file", sort_key=2)
    flags = []
    for name, field in Config.model_fields.items():
        text = f"{field.description} [default: {field.default}]"
        value: Any = field.annotation
        flags.append((name, Annotated[value | None, Parameter(group=group, help=text)], None))
    return make_dataclass("ConfigFlags", flags, kw_only=True)


@dataclass
class Args(_config_flags()):  # type: ignore[misc]
    """Train one model, save it, and print its losses and 20 sampled words."""

    file: Path | None = None
    """TOML file with a [config] table. Default: the lecture's configuration."""
    _: KW_ONLY
    names: Path | None = None
    """Text file with one word per line, UTF-8. Default: the embedded names."""
    device: str = "auto"
    """auto (a GPU if there is one), cpu, cuda, cuda:0 (any index) or mps."""
    out: Path | None = None
    """Path of the saved model. Default: a file in mlruns/checkpoints/ named after the config."""
    json: Annotated[bool, SWITCH] = False
    """Print the result as a JSON object in the last line."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Exits with 2 for bad input, 1 if the training fails, 130 after Ctrl-C.
    """
    with plain_errors():
        args = parse_args(Args, argv, prog=PROG)
        config = _read_config(args)
        resolve_device(args.device)
        corpus = load_corpus(args.names)
        out = args.out or _default_path(args.file, config, corpus)
        _check_writable(out)
        with _progress(config) as show:
            try:
                result = train(config, corpus, device=args.device, on_eval=show)
            except (Diverged, EngineFailed, MemoryError) as error:
                stop(f"{error}" or "out of memory; lower batch_size or n_hidden.", FAILED)
        _report(result, corpus, out, as_json=args.json)


def _read_config(args: Args) -> Config:
    """Return the config of the file, with the flags of the command line over it."""
    base = Config() if args.file is None else read_config(args.file)
    flags = {name: getattr(args, name) for name in Config.model_fields}
    changes = {name: value for name, value in flags.items() if value is not None}
    return parse_config({**base.model_dump(), **changes}, "command line")


def _default_path(file: Path | None, config: Config, corpus: Corpus) -> Path:
    """One file for one config and corpus: a run repeated writes over itself, another does not."""
    digest = hashlib.sha256(f"{config.model_dump_json()} {corpus.sha256}".encode()).hexdigest()[:8]
    return CHECKPOINTS / f"{file.stem if file else 'mlp'}-{digest}.safetensors"


def _check_writable(out: Path) -> None:
    """Refuse before the training what could not be saved after it."""
    with writing(out, "--out"):
        if out.is_dir():
            raise IsADirectoryError(21, "Is a directory")
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


@contextmanager
def _progress(config: Config) -> Iterator[Callable[[EvalPoint], None]]:
    """A progress bar on a terminal, a line an evaluation elsewhere; both on stderr."""
    started = time.perf_counter()

    def speed(point: EvalPoint) -> str:
        return f"{point.step / (time.perf_counter() - started):,.0f} steps/s"

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda point: print(
            f"step {point.step:,} of {config.max_steps:,}: train {point.train_loss:.4f}, dev {point.dev_loss:.4f}, "
            f"lr {point.lr:.3g}, {speed(point)}",
            file=sys.stderr,
        )
        return
    columns = (
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.description}"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("steps", total=config.max_steps)
        yield lambda point: bar.update(
            task,
            completed=point.step,
            description=f"steps, dev loss {point.dev_loss:.4f}, {speed(point)}",
        )


def _report(result: TrainResult, corpus: Corpus, out: Path, *, as_json: bool) -> None:
    """Evaluate the best weights exactly, save them, and print what the user wants to know."""
    model, steps = result.model, result.history[-1].step
    summary = {
        "train_loss": evaluate(model, corpus.train),
        "dev_loss": evaluate(model, corpus.dev),
        "best_step": result.best.step,
        "steps": steps,
        "seconds": round(result.seconds, 3),
        "steps_per_s": round(steps / result.seconds, 1),
        "n_params": result.n_params,
    }
    kept = {key: summary[key] for key in ("train_loss", "dev_loss", "best_step", "steps")}
    save_checkpoint(
        out, model, corpus.vocab, **kept, corpus={"source": corpus.source, "sha256": corpus.sha256}
    )
    print(
        f"train loss {summary['train_loss']:.4f}, dev loss {summary['dev_loss']:.4f} nats per character "
        f"(exact, best weights: step {result.best.step:,})"
    )
    print(
        f"{steps:,} steps of {result.n_params:,} parameters in {result.seconds:.1f} s, saved as {out}"
    )
    print("\n".join(sample_words(model, corpus.vocab, N_SAMPLES, seed=model.config.seed)))
    if as_json:
        print(json.dumps({**summary, "checkpoint": str(out)}))


if __name__ == "__main__":
    main()
