"""Start the MLflow UI, open it at a study's ranked trials, and stop it with Ctrl-C."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import sys
import threading
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

from makemore.cli import SWITCH
from makemore.errors import UserError
from studies.harness.cli.script import run_script
from studies.harness.store.paths import report_path
from studies.harness.store.text import check_study_name, without_password
from studies.harness.tracking.connection.connect import connect, resolve_uri
from studies.harness.tracking.connection.find import experiments_with_runs, find_experiment
from studies.harness.tracking.server import (
    HOST,
    free_port,
    open_browser,
    serve,
    server_address,
    stop_signals,
)
from studies.harness.tracking.views import experiment_links, is_study

RUN_A_STUDY = "run a study first, for example studies/mlp.py"


@dataclass
class Args:
    """Start the MLflow UI and open a study's ranked trials. Ctrl-C stops it.

    If --tracking-uri is the address of a server, the UI of that server is opened.
    """

    study: str | None = None
    """Name of the study. Default: the newest study."""
    _: KW_ONLY
    port: int | None = None
    """Port on 127.0.0.1. Default: 5000, or the next free one."""
    browser: bool = True
    """Open the link in a browser, if there is a display."""
    tracking_uri: str | None = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output, once the UI answers."""


def main(args: Args) -> int:
    """Serve until Ctrl-C, and return the exit code."""
    store = resolve_uri(args.tracking_uri)
    address = server_address(store)
    if address is not None:
        experiment = choose_experiment(store, args.study)
        link = show_links(args, address, experiment)
        if args.browser:
            open_browser(link)
        return 0

    port = free_port(args.port)
    experiment = choose_experiment(store, args.study)
    print("Starting the MLflow UI; this takes a few seconds.", file=sys.stderr, flush=True)
    try:
        with stop_signals(), serve(store, port) as server:
            link = show_links(args, f"http://{HOST}:{port}", experiment, pid=server.pid)
            print("Ctrl-C stops it.", file=sys.stderr, flush=True)
            if args.browser:
                # In a thread, because some browsers block the caller until they are closed.
                threading.Thread(target=open_browser, args=(link,), daemon=True).start()
            code = server.wait()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 0
    log = f"mlruns/ui-{port}.log"
    print(f"The MLflow server ended with exit code {code}; its log is {log}.", file=sys.stderr)
    return 1


def choose_experiment(store: str, study: str | None) -> Any:
    """Return the experiment of a study, or without a name the newest one.

    The newest has the most recent run; an experiment that is not a study counts only if there is
    no study.

    Raises:
        UserError: the store is missing or does not answer, or it has no such study.
    """
    database = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:///") and not database.is_file():
        raise UserError(f"{database}: no such database; {RUN_A_STUDY}.")
    if study is not None:
        return find_experiment(connect(store), check_study_name(study))

    experiments = experiments_with_runs(connect(store))
    if not experiments:
        raise UserError(f"no study in MLflow at {without_password(store)} yet; {RUN_A_STUDY}.")
    newest = next(filter(is_study, experiments), experiments[0])
    if len(experiments) > 1:
        names = ", ".join(sorted(experiment.name for experiment in experiments))
        print(f"Opening {newest.name}, the newest of: {names}.", file=sys.stderr)
        print("To open another one, give its name.", file=sys.stderr, flush=True)
    return newest


def show_links(args: Args, base: str, experiment: Any, **more: Any) -> str:
    """Print the links to an experiment and to its report, and return the first link.

    Args:
        args: the command line.
        base: address of the MLflow server.
        experiment: the MLflow experiment.
        more: further fields of the JSON object.
    """
    links = experiment_links(base, experiment)
    for label, link in links.items():
        print(f"{label}: {link}", flush=True)
    report = report_path(experiment.name)
    if report.exists():
        print(f"Report: {report.absolute().as_uri()}", flush=True)
    first = next(iter(links.values()))
    if args.json:
        print(json.dumps({"url": first, **more}), flush=True)
    return first


if __name__ == "__main__":
    run_script(Args, main)
