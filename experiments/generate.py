"""Generate names from a trained model, score them, and mark the names that are in the data.

The model is a checkpoint, an ensemble or a registered MLflow model (models:/NAME@ALIAS or
models:/NAME/VERSION).
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import hashlib
import json
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError
from makemore.words import parse_words, read_bytes
from studies.harness.cli.args import OUTPUT, STORES
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    from makemore.ensemble import Trained

# --new-only stops after this many draws.
DRAWS_PER_NAME = 200
MIN_DRAWS = 10_000

NAMES = Group("Names", sort_key=2)


@dataclass
class Args:
    """Print new names from a trained model, and mark those that are in the data."""

    source: str | None = None
    """Checkpoint, ensemble or registered model. Default: the champion or the newest checkpoint."""
    _: KW_ONLY
    model: str | None = None
    """FILE.py:CLASS if it is a model of your own. Default: the MLP, or an ensemble."""
    prefix: Annotated[str, Parameter(group=NAMES, show_default=False)] = ""
    """First characters of every name. Default: none."""
    n: Annotated[int, Parameter(group=NAMES)] = 20
    """Number of names."""
    temperature: Annotated[float, Parameter(group=NAMES)] = 1.0
    """Divides the logits: below 1 the names are more typical, above 1 less."""
    seed: Annotated[int, Parameter(group=NAMES)] = 1
    """Random seed; the same seed gives the same names."""
    new_only: Annotated[bool, SWITCH, Parameter(group=NAMES)] = False
    """Print only names that are not in the data, each once."""
    names: Annotated[Path | None, Parameter(group=NAMES)] = None
    """Words that the model was trained on, one per line, UTF-8. Default: the embedded names."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""


@dataclass(frozen=True)
class Name:
    """A generated name.

    Attributes:
        nats: mean cross-entropy in nats per character, its end included, at temperature 1.
        in_data: whether the data holds it; None if the model's data is not known.
    """

    name: str
    nats: float
    in_data: bool | None


def main(args: Args) -> int:
    """Generate and print. Returns the exit code: 1 if --new-only found too few names."""
    if args.n < 1:
        raise UserError(f"--n must be at least 1, but got {args.n}.")
    from experiments.models import open_model
    from makemore.model_class import load_model_class
    from makemore.sampling import score_words

    raw = read_bytes(args.names)
    words = set(parse_words(raw, args.names))
    model = None if args.model is None else load_model_class(args.model)
    source, trained = open_model(args.source, args.tracking_uri, model)
    unknown = _compare_data(trained, args.names, hashlib.sha256(raw).hexdigest())
    if unknown and args.new_only:
        raise UserError(f"--new-only cannot tell which names are new: {unknown}")
    data = None if unknown else words

    drawn = draw(trained, args, words)
    scores = score_words(trained.model, trained.vocab, drawn)
    names = [
        Name(word, float(nats), None if data is None else word in data)
        for word, nats in zip(drawn, scores, strict=True)
    ]
    _show(args, source, names)
    if unknown:
        print(f"Which names are new is not known: {unknown}", file=sys.stderr)
    if len(names) < args.n:
        print(
            f"{_max_draws(args.n):,} draws gave {len(names)} of {args.n} names that are new; "
            "lower --n, raise --temperature, or shorten --prefix.",
            file=sys.stderr,
        )
    if args.json:
        print(json.dumps({"model": source, "names": [_to_json(name) for name in names]}))
    return 0 if len(names) == args.n else 1


def _compare_data(trained: Trained, names: Path | None, sha256: str) -> str:
    """Return why the given words cannot show which names are new, or "" if they can.

    They can if they are the words that the model was trained on. A checkpoint without a record of
    its words is compared with a file that the user names.
    """
    given = f"{names}" if names else "the embedded names"
    record = _training_data(trained.metadata)
    if record is None:
        if names is not None:
            return ""
        return "the checkpoint does not record its words; give their file with --names."
    if record["sha256"] == sha256:
        return ""
    return (
        f"the model was trained on {record['source']} (sha256 {record['sha256'][:12]}), "
        f"not on {given} (sha256 {sha256[:12]}); give that file with --names."
    )


def _training_data(metadata: dict[str, Any]) -> dict[str, str] | None:
    """Return the source and sha256 of the words that a checkpoint records, or None."""
    for table, source, sha256 in (
        ("corpus", "source", "sha256"),
        ("origin", "data", "data_sha256"),
    ):
        record = metadata.get(table)
        if isinstance(record, dict) and isinstance(record.get(sha256), str):
            return {"source": str(record.get(source, "other words")), "sha256": record[sha256]}
    return None


def draw(trained: Trained, args: Args, data: set[str]) -> list[str]:
    """Draw the words that the flags ask for.

    With --new-only the words are distinct and not in `data`, and may be fewer than asked for.

    Raises:
        UserError: as `sample_words`.
    """
    from makemore.sampling import sample_words

    def sample(count: int) -> list[str]:
        return sample_words(
            trained.model,
            trained.vocab,
            count,
            seed=args.seed,
            temperature=args.temperature,
            prefix=args.prefix,
        )

    if not args.new_only:
        return sample(args.n)

    count = args.n
    while True:
        # A longer list begins with the shorter one, so the number of rounds changes nothing.
        new = [word for word in dict.fromkeys(sample(count)) if word and word not in data]
        if len(new) >= args.n or count == _max_draws(args.n):
            return new[: args.n]
        count = min(4 * count, _max_draws(args.n))


def _max_draws(n: int) -> int:
    return max(DRAWS_PER_NAME * n, MIN_DRAWS)


def _to_json(name: Name) -> dict[str, Any]:
    return {"name": name.name, "nats_per_char": name.nats, "in_data": name.in_data}


def _show(args: Args, source: str, names: list[Name]) -> None:
    """Print the names as a table, and how many are new."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    from studies.harness.cli.terminal import make_console, say
    from studies.harness.store.text import counted

    console = make_console(stderr=args.json)
    settings = f"temperature {args.temperature:g}, seed {args.seed}"
    say(console, f"{counted(len(names), 'name')} from {source}, {settings}:", "bold")
    table = Table(box=box.SIMPLE_HEAD, show_edge=False)
    table.add_column("name")
    table.add_column("nats per character", justify="right")
    table.add_column("")
    for row in names:
        mark = "in the data" if row.in_data else ""
        table.add_row(Text(row.name or "(empty)"), f"{row.nats:.3f}", mark)
    console.print(table)

    known = sum(bool(row.in_data) for row in names)
    if names and names[0].in_data is not None and not args.new_only:
        new = len(names) - known
        are, others = ("is" if n == 1 else "are" for n in (new, known))
        say(console, f"{new} {are} new; {known} {others} in the data.")


if __name__ == "__main__":
    run_script(Args, main)
