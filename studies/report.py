"""A study's report, written again: one HTML page that tells its story."""

from __future__ import annotations

import json
import os
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
import tyro

from makemore.checkpoint import load_checkpoint
from makemore.data import Corpus, load_corpus
from makemore.model import MLP
from studies.harness.cli import run_script
from studies.harness.display import make_console, say, shell_command, store_flags
from studies.harness.mlflow_store import connect, find_runs, versions
from studies.harness.records import dev_loss, ranked
from studies.harness.report import make_report
from studies.harness.storage import MLRUNS, without_password
from studies.harness.study import load_study

os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")


@dataclass
class Args:
    """Write the report of a study: one HTML page that works without a network."""

    study: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="STUDY")]
    """Name of the study."""
    out: Annotated[Path | None, tyro.conf.arg(metavar="FILE", aliases=["-o"])] = None
    """Where the page goes; mlruns/reports/STUDY.html if not given."""
    names: Annotated[Path | None, tyro.conf.arg(metavar="PATH")] = None
    """The study's file of words; the embedded names if not given."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI, where the best trial's model is; the SQLite database in mlruns/ if not given."""
    json: bool = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    study = load_study(args.study, args.storage)
    corpus = _load_corpus(args, study)
    model, why = _load_best_model(args, study)
    path = args.out or MLRUNS / "reports" / f"{args.study}.html"
    names = ["--names", str(args.names)] if args.names else []
    flags = [*names, *store_flags(args)]
    context: dict[str, Any] = {
        "flags": flags,
        "store_flags": store_flags(args),
        "again": without_password(shell_command("studies/report.py", [args.study, *flags])),
        "versions": versions(),
    }
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
        ValueError: the file that was given is not the study's.
    """
    corpus = load_corpus(args.names)
    if corpus.sha256 == study.user_attrs.get("data_sha256"):
        return corpus
    if args.names is not None:
        raise ValueError(f"{args.names}: is not the file of words that study {args.study!r} was made on.")
    return None


def _load_best_model(args: Args, study: optuna.Study) -> tuple[MLP | None, str]:
    """The model of the trial of lowest dev loss from MLflow, or None and a sentence that says why not."""
    best = next(iter(ranked(study.get_trials(deepcopy=False))), None)
    if best is None:
        return None, "no trial has a dev loss."
    missing = f"MLflow holds no model of trial {best.number}, whose dev loss {dev_loss(best):.4f} is the lowest."
    client = connect(args.tracking_uri)
    experiment = client.get_experiment_by_name(args.study)
    runs = find_runs(client, experiment.experiment_id, trial=best.number) if experiment else []
    for run in runs:
        if not any(artifact.path == "model.safetensors" for artifact in client.list_artifacts(run.info.run_id)):
            continue
        with tempfile.TemporaryDirectory() as folder:
            return load_checkpoint(client.download_artifacts(run.info.run_id, "model.safetensors", folder)).model, ""
    return None, missing


def _write(path: Path, page: str) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"{path}: cannot be written ({error.strerror or error}); give --out another path.") from None


if __name__ == "__main__":
    run_script(Args, main)
