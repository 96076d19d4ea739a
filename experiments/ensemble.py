"""Select an ensemble from the models that studies kept, mix it with counts, and measure it.

Greedy selection with replacement (Caruana et al. 2004), cross-fitted by word. The table has the
form of Bengio et al. 2003, tables 1 and 2. The test split is read once, after the selection.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import sys
import time
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Group, Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError, check_output, writing
from makemore.words import read_words, split_words
from studies.harness.cli.args import OUTPUT, STORES
from studies.harness.cli.script import run_script
from studies.harness.store.paths import MLRUNS

if TYPE_CHECKING:
    from experiments.ensembling.results import Measured, Selected
    from makemore.data import Corpus

ENSEMBLE = Group("Ensemble", sort_key=2)
MODEL = Group("Model", sort_key=3)


@dataclass
class Args:
    """Select an ensemble from the models that studies kept, and measure it."""

    studies: Annotated[tuple[str, ...], Parameter(negative=())]
    """Name of the study, or names of studies of the same words."""
    _: KW_ONLY
    size: Annotated[int, Parameter(group=ENSEMBLE)] = 12
    """Models at most; one that is picked several times counts as often."""
    counts: Annotated[bool, Parameter(group=ENSEMBLE)] = True
    """Mix the ensemble with a counting model (Kneser-Ney, 5 characters of context)."""
    names: Annotated[Path | None, Parameter(group=ENSEMBLE)] = None
    """Words of the studies, one per line, UTF-8. Default: the embedded names."""
    out: Annotated[Path | None, Parameter(name=("--out", "-o"), group=MODEL)] = None
    """File to write. Default: mlruns/ensembles/STUDY.safetensors."""
    register: Annotated[bool, Parameter(group=MODEL)] = True
    """Register the ensemble in MLflow as makemore-ensemble."""
    storage: Annotated[str | None, Parameter(group=STORES)] = None
    """Optuna URL or journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Select, measure, save, report and log. Returns the exit code."""
    began = time.time()
    if args.size < 1:
        raise UserError(f"--size must be at least 1, but got {args.size}.")
    names = list(dict.fromkeys(args.studies))
    out = args.out or MLRUNS / "ensembles" / f"{'+'.join(names)}.safetensors"
    check_output(out, "--out")

    from experiments.ensembling.candidates import check_models, load_candidates, load_words
    from experiments.ensembling.results import measure_test, select_ensemble
    from studies.harness.store.study import load_study
    from studies.harness.tracking.connection.connect import connect

    studies = [load_study(name, args.storage) for name in names]
    check_models(studies)
    corpus = load_words(studies, args.names)
    client = connect(args.tracking_uri)
    candidates = load_candidates(studies, client)
    selected = select_ensemble(candidates, corpus, size=args.size, with_counts=args.counts)
    # The only place that reads the test split; everything is chosen before it.
    test = measure_test(selected, corpus, split_words(read_words(args.names)).test)
    _save(args, selected, test, corpus, out)
    return _finish(args, client, selected, test, corpus, out, began)


def _save(args: Args, selected: Selected, test: Measured, corpus: Corpus, out: Path) -> None:
    """Write the ensemble with its losses and the origin of its members."""
    from experiments.ensembling.tracking import saved_losses
    from makemore.ensemble import save
    from studies.harness.tracking.runs import describe_data

    metadata = {
        "losses": saved_losses(selected, test),
        "corpus": describe_data(corpus, args.names),
        "members": [
            {"study": c.study, "trial": c.trial, "dev_loss": c.dev_loss, "picks": n}
            for c, n in selected.members
        ],
    }
    with writing(out, "--out"):
        save(out, selected.ensemble(corpus, metadata))


def _finish(
    args: Args,
    client: Any,
    selected: Selected,
    test: Measured,
    corpus: Corpus,
    out: Path,
    began: float,
) -> int:
    """Report the ensemble, and log it to MLflow. Returns the exit code."""
    from experiments.ensembling.terminal import show, show_next
    from experiments.ensembling.tracking import EXPERIMENT, log_ensemble
    from studies.harness.cli.terminal import make_console
    from studies.harness.search.launch import NOT_SENT
    from studies.harness.tracking.connection.find import get_experiment
    from studies.harness.tracking.runs import describe_data

    console = make_console(stderr=args.json)
    show(console, selected, test)
    run_id = None
    registered = None
    try:
        run_id, registered = log_ensemble(
            client,
            get_experiment(client, EXPERIMENT),
            selected,
            test,
            out,
            describe_data(corpus, args.names),
            began=began,
            into_registry=args.register,
        )
    except UserError as error:
        print(f"{error}. The file and the losses above are complete.", file=sys.stderr)

    flags = ["--names", str(args.names)] if args.names else []
    show_next(console, out, registered, flags, args.tracking_uri)
    if args.json:
        print(json.dumps(_summary(selected, test, out, run_id, registered)))
    return 0 if run_id else NOT_SENT


def _summary(
    selected: Selected, test: Measured, out: Path, run_id: str | None, registered: Any
) -> dict[str, Any]:
    """Return the object for --json."""
    version = None
    if registered is not None:
        version = {"version": registered.version, "alias": registered.alias}
    return {
        "file": str(out),
        "candidates": len(selected.candidates),
        "members": [
            {"study": c.study, "trial": c.trial, "dev_loss": c.dev_loss, "picks": n}
            for c, n in selected.members
        ],
        "counts_weight": selected.choice.counts_weight,
        "dev": selected.dev.losses,
        "test": test.losses,
        "dev_comparisons": [difference.summary() for difference in selected.dev.differences],
        "test_comparisons": [difference.summary() for difference in test.differences],
        "mlflow_run_id": run_id,
        "registered": version,
    }


if __name__ == "__main__":
    run_script(Args, main)
