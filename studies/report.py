"""A study's report, written again: one HTML page that tells its story."""

from __future__ import annotations

import json
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

import optuna
from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.data import Corpus, load_corpus
from makemore.errors import UserError, writing
from studies.harness.cli.script import run_script
from studies.harness.cli.terminal import make_console, say
from studies.harness.report.build import make_report
from studies.harness.search.finish import load_best_model, report_context
from studies.harness.store.paths import report_path
from studies.harness.store.study import load_study
from studies.harness.tracking.client import connect


@dataclass
class Args:
    """Write the report of a study: one HTML page that works without a network."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None
    """Where the page goes; mlruns/reports/STUDY.html if not given."""
    names: Path | None = None
    """The study's file of words; the embedded names if not given."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI, where the best trial's model is; the SQLite database in mlruns/ if not given."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    study = load_study(args.study, args.storage)
    corpus = _load_corpus(args, study)
    client = connect(args.tracking_uri)
    experiment = client.get_experiment_by_name(args.study)
    model, why = load_best_model(study, client, experiment.experiment_id if experiment else None)
    path = args.out or report_path(args.study)
    context = report_context(args, study)
    _write(path, make_report(study, corpus, model, context))
    if corpus is None:
        print(
            f"The study was made on {study.user_attrs.get('data')}, so the page has no ladder and no samples; give "
            "--names the path of that file.",
            file=sys.stderr,
        )
    elif model is None:
        print(f"The page has no samples and no loss on unseen words: {why}", file=sys.stderr)
    say(make_console(stderr=args.json), f"The report of study {args.study}: {path}")
    if args.json:
        print(json.dumps({"study": args.study, "path": str(path), "bytes": path.stat().st_size}))
    return 0


def _load_corpus(args: Args, study: optuna.Study) -> Corpus | None:
    """The study's words, or None when they are another file than the embedded one and its path is not given.

    Raises:
        UserError: the file that was given is not the study's.
    """
    corpus = load_corpus(args.names)
    if corpus.sha256 == study.user_attrs.get("data_sha256"):
        return corpus
    if args.names is not None:
        raise UserError(
            f"{args.names}: is not the file of words that study {args.study!r} was made on."
        )
    return None


def _write(path: Path, page: str) -> None:
    with writing(path, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_script(Args, main)
