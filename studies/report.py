"""Write the report of a study again: one HTML page."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import shlex
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError, check_output, writing
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    import optuna

    from makemore.data import Corpus


@dataclass
class Args:
    """Write the report of a study: one HTML page that works without a network."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None
    """File to write. Default: mlruns/reports/STUDY.html."""
    model: str | None = None
    """FILE.py:CLASS of the study's model, to sample from it. Default: the MLP."""
    names: Path | None = None
    """File of words of the study. Default: the embedded names."""
    storage: str | None = None
    """Optuna URL or journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: str | None = None
    """MLflow tracking URI, to load the best model. Default: the database in mlruns/."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Write the page. Returns the exit code."""
    from makemore.model_class import check_class, load_model_class
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.report.build import make_report
    from studies.harness.search.finish import load_winning_model, report_context
    from studies.harness.store.paths import report_path
    from studies.harness.store.study import load_study
    from studies.harness.store.text import check_study_name
    from studies.harness.tracking.connection.connect import connect
    from studies.harness.tracking.models import kept_models

    check_study_name(args.study)
    path = check_output(args.out or report_path(args.study), "--out")
    study = load_study(args.study, args.storage)
    source = study.user_attrs.get("model")
    model_class = None
    if args.model is not None:
        model_class = load_model_class(args.model)
        check_class(f"{args.study}: is a study", source, model_class)
    corpus = _load_corpus(args, study)
    client = connect(args.tracking_uri)
    experiment = client.get_experiment_by_name(args.study)
    experiment_id = experiment.experiment_id if experiment else None
    if source is not None and model_class is None:
        model, why = None, f"it needs the model's class; give --model {shlex.quote(source)}."
    else:
        model, why = load_winning_model(study, client, experiment_id, model_class)
    # Ensembles have MLPs only.
    kept = () if source is not None else kept_models(study, client, experiment_id)
    models = (model for _, model in kept)
    _write(path, make_report(study, corpus, model, report_context(args, study), models))

    if corpus is None:
        data = study.user_attrs.get("data")
        missing = "counting baselines and no samples"
        print(f"The report has no {missing}; give --names the path of {data}.", file=sys.stderr)
    elif model is None:
        print(f"The report has no samples and no loss on unseen words: {why}", file=sys.stderr)
    say(make_console(stderr=args.json), f"Report of study {args.study}: {path}")
    if args.json:
        print(json.dumps({"study": args.study, "path": str(path), "bytes": path.stat().st_size}))
    return 0


def _load_corpus(args: Args, study: optuna.Study) -> Corpus | None:
    """Return the study's words; None if they are not the embedded names and --names is not given.

    Raises:
        UserError: the file of --names is not the study's.
    """
    from makemore.data import load_corpus

    corpus = load_corpus(args.names)
    if corpus.sha256 == study.user_attrs.get("data_sha256"):
        return corpus
    if args.names is None:
        return None
    data = study.user_attrs.get("data")
    raise UserError(
        f"{args.names}: study {args.study!r} was made on other words; give --names the path of "
        f"{data}, or leave it out for the embedded names."
    )


def _write(path: Path, page: str) -> None:
    with writing(path, "--out"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    run_script(Args, main)
