"""New names from a trained model, how likely the model finds them, and which of them stand in the data.

The model is a checkpoint file, or one of MLflow's registered models (models:/NAME@ALIAS or models:/NAME/VERSION).
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
import tempfile
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from rich import box
from rich.table import Table
from rich.text import Text

from makemore.checkpoint import Checkpoint, load_checkpoint
from makemore.cli import SWITCH
from makemore.errors import UserError
from makemore.sampling import sample_words, score_words
from makemore.words import NAMES, read_words
from studies.harness.cli.script import run_script
from studies.harness.cli.terminal import make_console, say
from studies.harness.store.paths import MLRUNS
from studies.harness.tracking.client import connect

CHECKPOINTS = MLRUNS / "checkpoints"
REGISTERED = "models:/"
DRAWS_PER_NAME, MIN_DRAWS = 200, 10_000  # after so many, --new-only gives up


@dataclass
class Args:
    """Print new names from a trained model, and mark those that stand in the data."""

    model: str | None = None
    """Checkpoint file or registered model; the newest file in mlruns/checkpoints/ if not given."""
    _: KW_ONLY
    prefix: str = ""
    """What every name begins with."""
    n: int = 20
    """How many names."""
    temperature: float = 1.0
    """Below 1 the names become more usual, above 1 less."""
    seed: int = 1
    """The same seed gives the same names."""
    new_only: Annotated[bool, SWITCH] = False
    """Leave out what stands in the data, and what was drawn before."""
    names: Path | None = None
    """The data: words, one a line, UTF-8; the embedded names if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI for models:/; the SQLite database in mlruns/ if not given."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


@dataclass(frozen=True)
class Name:
    """A name that a model made up.

    Attributes:
        nats: its mean cross-entropy in nats per character, its end included, at temperature 1.
        in_data: whether the data holds it.
    """

    name: str
    nats: float
    in_data: bool


def main(args: Args) -> int:
    """Draw and print. Returns the exit code: 1 when --new-only could not find enough."""
    if args.n < 1:
        raise UserError(f"--n must be at least 1, but got {args.n}.")
    data = set(read_words(args.names))
    source, checkpoint = open_model(args.model, args.tracking_uri)
    _warn_of_other_data(checkpoint, args.names)
    words = draw(checkpoint, args, data)
    scores = score_words(checkpoint.model, checkpoint.vocab, words)
    names = [
        Name(word, float(nats), word in data) for word, nats in zip(words, scores, strict=True)
    ]
    _show(args, source, names)
    if len(names) < args.n:
        tried = _most_draws(args.n)
        print(
            f"{tried:,} draws gave {len(names)} of {args.n} names that are new; lower --n, raise --temperature, or "
            "shorten --prefix.",
            file=sys.stderr,
        )
    if args.json:
        rows = [
            {"name": row.name, "nats_per_char": row.nats, "in_data": row.in_data} for row in names
        ]
        print(json.dumps({"model": source, "names": rows}))
    return 0 if len(names) == args.n else 1


def draw(checkpoint: Checkpoint, args: Args, data: set[str]) -> list[str]:
    """The words that the flags ask for; with --new-only those that are new and different, as far as they are found.

    Raises:
        UserError: as `sample_words`.
    """

    def sample(count: int) -> list[str]:
        model, vocab = checkpoint.model, checkpoint.vocab
        return sample_words(
            model, vocab, count, seed=args.seed, temperature=args.temperature, prefix=args.prefix
        )

    if not args.new_only:
        return sample(args.n)
    count, most = args.n, _most_draws(args.n)
    while True:
        # A longer list begins with the shorter one, so what is found does not depend on the number of rounds.
        new = [word for word in dict.fromkeys(sample(count)) if word and word not in data]
        if len(new) >= args.n or count == most:
            return new[: args.n]
        count = min(4 * count, most)


def _most_draws(n: int) -> int:
    return max(DRAWS_PER_NAME * n, MIN_DRAWS)


def open_model(source: str | None, tracking_uri: str | None = None) -> tuple[str, Checkpoint]:
    """Read a model from a checkpoint file, from MLflow's registry, or from the newest file in mlruns/checkpoints/.

    Returns:
        Where it was read from, for display, and what the file holds.

    Raises:
        UserError: there is none, or it cannot be read; one sentence.
    """
    if source is not None and source.startswith(REGISTERED):
        return source, _load_registered(source, tracking_uri)
    if source is None:
        files = sorted(
            CHECKPOINTS.glob("*.safetensors"), key=lambda path: (path.stat().st_mtime_ns, path.name)
        )
        if not files:
            raise UserError(
                f"{CHECKPOINTS}: holds no checkpoint yet; train a model first, or give a file's path."
            )
        source = str(files[-1])
    return source, load_checkpoint(source)


def _load_registered(uri: str, tracking_uri: str | None) -> Checkpoint:
    """Download a registered model's files and read its checkpoint."""
    named = re.fullmatch(r"models:/(?P<name>[^/@]+)(@(?P<alias>[^/@]+)|/(?P<version>\d+))", uri)
    if named is None:
        raise UserError(
            f"{uri}: names no version of a model; give models:/NAME@ALIAS or models:/NAME/VERSION."
        )
    name, alias, version = named["name"], named["alias"], named["version"]
    client = connect(tracking_uri)
    from mlflow.artifacts import download_artifacts
    from mlflow.exceptions import MlflowException

    with tempfile.TemporaryDirectory() as folder:
        try:
            # MLflow alone would look the alias up in its global store, whatever store is asked for.
            version = version or client.get_model_version_by_alias(name, alias).version
            place = client.get_model_version_download_uri(name, version)
            with contextlib.redirect_stderr(io.StringIO()):  # progress bars
                download_artifacts(place, dst_path=folder, tracking_uri=client.tracking_uri)
        except (MlflowException, OSError) as error:
            reason = (str(error).strip() or type(error).__name__).splitlines()[0]
            raise UserError(f"{uri}: cannot be loaded from MLflow ({reason[:200]}).") from None
        found = sorted(Path(folder).rglob("*.safetensors"))
        if len(found) != 1:
            raise UserError(
                f"{uri}: holds {len(found)} safetensors files and not one, so it is no model of this project."
            )
        return load_checkpoint(found[0])


def _warn_of_other_data(checkpoint: Checkpoint, names: Path | None) -> None:
    trained = checkpoint.metadata.get("corpus")
    path = names or NAMES
    if not isinstance(trained, dict) or trained.get("sha256") in (
        None,
        hashlib.sha256(path.read_bytes()).hexdigest(),
    ):
        return
    print(
        f"Warning: the model was trained on {trained.get('source')}, and its names are looked up in {path.name}; "
        "--names says which file.",
        file=sys.stderr,
    )


def _show(args: Args, source: str, names: list[Name]) -> None:
    console = make_console(stderr=args.json)
    say(
        console,
        f"{len(names)} names from {source}, temperature {args.temperature:g}, seed {args.seed}:",
        "bold",
    )
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("name")
    table.add_column("nats a character", justify="right")
    table.add_column("")
    for row in names:
        table.add_row(
            Text(row.name or "(empty)"), f"{row.nats:.3f}", "in the data" if row.in_data else ""
        )
    console.print(table)
    known = sum(row.in_data for row in names)
    if names and not args.new_only:
        say(console, f"{len(names) - known} are new; {known} stand in the data.")


if __name__ == "__main__":
    run_script(Args, main)
