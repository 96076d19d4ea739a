"""Write the report of a study again: one HTML page."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import sys
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.errors import check_output
from studies.harness.cli.script import run_script


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
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.search.finish import write_again
    from studies.harness.store.paths import report_path
    from studies.harness.store.study import load_study
    from studies.harness.store.text import check_study_name

    check_study_name(args.study)
    path = check_output(args.out or report_path(args.study), "--out")
    study = load_study(args.study, args.storage)
    model = None
    if args.model is not None:
        from makemore.model_class import check_class, load_model_class

        model = load_model_class(args.model)
        check_class(f"{args.study}: is a study", study.user_attrs.get("model"), model)
    if missing := write_again(args, study, path, model):
        print(missing, file=sys.stderr)
    say(make_console(stderr=args.json), f"Report of study {args.study}: {path}")
    if args.json:
        print(json.dumps({"study": args.study, "path": str(path), "bytes": path.stat().st_size}))
    return 0


if __name__ == "__main__":
    run_script(Args, main)
