"""Training of one model, as a function and as a command.

python -m makemore.trainer experiments/configs/lecture.toml --lr 0.05

Modules that are slow to import are imported in functions, so --help answers at once.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import hashlib
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import KW_ONLY, dataclass, make_dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from makemore.cli import FAILED, SWITCH, parse_args, plain_errors, stop
from makemore.config import Config, parse_config, read_toml
from makemore.errors import check_output, writing

if TYPE_CHECKING:
    from makemore.data import Corpus
    from makemore.engines import EvalPoint, TrainResult
    from makemore.models import ModelClass

CHECKPOINTS = Path("mlruns", "checkpoints")  # in the working directory
N_SAMPLES = 20
PROG = "python -m makemore.trainer"


def train(
    config: Config,
    corpus: Corpus,
    *,
    device: str = "auto",
    on_eval: Callable[[EvalPoint], None] | None = None,
    model: ModelClass | None = None,
) -> TrainResult:
    """Train one model on an engine with one slot.

    The result depends only on the config, the corpus and the kind of device.

    Args:
        config: hyperparameters and seed.
        corpus: the data.
        device: auto, cpu, cuda, cuda:0 (any index) or mps; auto takes a GPU if there is one.
        on_eval: called after each evaluation. An exception that it raises ends the training and
            reaches the caller.
        model: class of the user's model; None for the MLP.

    Returns:
        The model with the weights of its best evaluation, and all evaluations.

    Raises:
        UserError: the device is unknown or absent, the model does not fit on it, or the config is
            not one of the model.
        Diverged: a loss was not finite or far too high.
        EngineFailed: the device failed.
    """
    from makemore.engines import Envelope, EvalPoint, make_engine
    from makemore.models import check_config

    check_config(config, model, "the config")
    with closing(make_engine(device, corpus, 1, Envelope.around(config), model)) as engine:
        slot = engine.admit(config)
        step = 0
        while step < config.max_steps:
            for _, outcome in engine.advance():
                if not isinstance(outcome, EvalPoint):
                    raise outcome
                step = outcome.step
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
    model: str | None = None
    """FILE.py:CLASS of a model of your own. Its further config fields are set in the TOML file.
    Default: the MLP."""
    names: Path | None = None
    """Text file with one word per line, UTF-8. Default: the embedded names."""
    device: str = "auto"
    """auto, cpu, cuda, cuda:0 (any index) or mps. auto takes CUDA, then MPS, then the CPU."""
    out: Path | None = None
    """Path of the saved model. Default: a file in mlruns/checkpoints/ named after the config."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Exits with 2 for a user error, 1 if the training fails, 130 after Ctrl-C.
    """
    with plain_errors():
        args = parse_args(Args, argv, prog=PROG)
        _run(args)


def _run(args: Args) -> None:
    """Train, save and report, after checking everything that could fail at the end."""
    from makemore.data import load_corpus
    from makemore.engines import Diverged, EngineFailed, resolve_device
    from makemore.model_class import check_model, load_model_class

    model = None if args.model is None else load_model_class(args.model)
    config = _read_config(args, model)
    resolve_device(args.device)
    corpus = load_corpus(args.names)
    if model is not None:
        check_model(model, config, len(corpus.vocab))
    _warn_of_other_words(args, corpus)
    out = args.out or _default_path(args, config, corpus)
    _check_writable(out)
    with _progress(config) as show:
        try:
            result = train(config, corpus, device=args.device, on_eval=show, model=model)
        except (Diverged, EngineFailed, MemoryError) as error:
            stop(str(error) or "out of memory; lower batch_size or n_hidden.", FAILED)
    _report(result, corpus, out, as_json=args.json)


def _read_config(args: Args, model: ModelClass | None) -> Config:
    """Return the config of the file, changed by the flags of the command line."""
    from makemore.model_class import read_model_config
    from makemore.models import config_class_of

    config_class = config_class_of(model)
    base = config_class() if args.file is None else read_model_config(args.file, model)
    flags = {name: getattr(args, name) for name in Config.model_fields}
    changes = {name: value for name, value in flags.items() if value is not None}
    return parse_config({**base.model_dump(), **changes}, "command line", config_class)


def _warn_of_other_words(args: Args, corpus: Corpus) -> None:
    """Say so if the config was found on other words than those it is trained on."""
    origin = read_toml(args.file).get("origin", {}) if args.file else {}
    found = origin.get("data_sha256") if isinstance(origin, dict) else None
    if found not in (None, corpus.sha256):
        words = origin.get("data", "another file")
        print(
            f"Warning: {args.file} was found on the words of {words}, not on {corpus.source}.",
            file=sys.stderr,
        )


def _default_path(args: Args, config: Config, corpus: Corpus) -> Path:
    """Return a path that is different for each config, model and corpus.

    The same training again replaces its file; another training never does.
    """
    trained = f"{config.model_dump_json()} {corpus.sha256}{args.model or ''}"
    digest = hashlib.sha256(trained.encode()).hexdigest()[:8]
    name = args.file.stem if args.file else "mlp"
    return CHECKPOINTS / f"{name}-{digest}.safetensors"


def _check_writable(out: Path) -> None:
    """Refuse a path that cannot be written before the training, not after it.

    Raises:
        UserError: the path is not a regular file, or its folder is not writable.
    """
    check_output(out, "--out")
    with writing(out, "--out"):
        out.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=out.parent).close()


@contextmanager
def _progress(config: Config) -> Iterator[Callable[[EvalPoint], None]]:
    """Give a function that shows an evaluation on stderr.

    A terminal gets a progress bar; a file or a pipe gets one line per evaluation.
    """
    from rich.console import Console

    started = time.perf_counter()

    def speed(point: EvalPoint) -> str:
        return f"{point.step / (time.perf_counter() - started):,.0f} steps/s"

    def print_line(point: EvalPoint) -> None:
        print(
            f"step {point.step:,} of {config.max_steps:,}: minibatch {point.minibatch_loss:.4f}, "
            f"dev {point.dev_loss:.4f}, lr {point.lr:.3g}, {speed(point)}",
            file=sys.stderr,
        )

    console = Console(stderr=True)
    if not console.is_terminal:
        yield print_line
        return

    from rich import progress

    columns = (
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("{task.description}"),
        progress.TimeRemainingColumn(),
    )
    with progress.Progress(*columns, console=console) as bar:
        task = bar.add_task("steps", total=config.max_steps)

        def move_bar(point: EvalPoint) -> None:
            text = f"steps, dev loss {point.dev_loss:.4f}, {speed(point)}"
            bar.update(task, completed=point.step, description=text)

        yield move_bar


def _report(result: TrainResult, corpus: Corpus, out: Path, *, as_json: bool) -> None:
    """Evaluate the best weights exactly, save them, and print the losses and sampled words."""
    from makemore.checkpoint import save_checkpoint
    from makemore.evaluation import evaluate
    from makemore.sampling import sample_words

    model = result.model
    steps = result.history[-1].step
    losses = {
        "train_loss": evaluate(model, corpus.train),
        "dev_loss": evaluate(model, corpus.dev),
        "best_step": result.best.step,
        "steps": steps,
    }
    source = {"source": corpus.source, "sha256": corpus.sha256}
    save_checkpoint(out, model, corpus.vocab, **losses, corpus=source)

    print(
        f"train loss {losses['train_loss']:.4f}, dev loss {losses['dev_loss']:.4f} "
        f"nats per character (exact, best weights: step {result.best.step:,})"
    )
    print(
        f"{steps:,} steps of {result.n_params:,} parameters in {result.seconds:.1f} s, "
        f"saved as {out}"
    )
    print("\n".join(sample_words(model, corpus.vocab, N_SAMPLES, seed=model.config.seed)))
    if as_json:
        speed = {
            "seconds": round(result.seconds, 3),
            "steps_per_s": round(steps / result.seconds, 1),
            "n_params": result.n_params,
        }
        print(json.dumps({**losses, **speed, "checkpoint": str(out)}))


if __name__ == "__main__":
    main()
