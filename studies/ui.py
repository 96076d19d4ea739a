"""The MLflow UI on this store: started, opened at a study's runs, and stopped with Ctrl-C."""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any, NoReturn
from urllib.parse import urlsplit

from makemore.cli import SWITCH
from makemore.errors import UserError
from studies.harness.cli.script import run_script
from studies.harness.store.paths import report_path
from studies.harness.store.text import check_study_name
from studies.harness.tracking.client import connect, default_tracking_uri
from studies.harness.tracking.server import HOST, free_port, runs_link, serve
from studies.harness.tracking.views import CHARTS, NAMES, PREFIX, TRIALS, view_link


@dataclass
class Args:
    """Start the MLflow UI on this store and open it; Ctrl-C stops it."""

    study: str | None = None
    """Name of the study to open; all experiments if not given."""
    _: KW_ONLY
    port: int | None = None
    """Port on 127.0.0.1; 5000 or the next free one if not given."""
    browser: bool = True
    """Open the link in a browser, where there is a display."""
    tracking_uri: str | None = None
    """MLflow tracking URI; the SQLite database in mlruns/ if not given. For a server only the link is opened."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output, once the UI answers."""


def main(args: Args) -> int:
    """Serve until Ctrl-C. Returns the exit code."""
    store = args.tracking_uri or os.environ.get("MLFLOW_TRACKING_URI") or default_tracking_uri()
    if store.startswith(("http://", "https://")):
        parts = urlsplit(store)
        base = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
        links = _links(base, _find(store, args.study))
        _show(args, links)
        _open(args, links[0])
        return 0
    port = free_port(args.port)
    links = _links(f"http://{HOST}:{port}", _find(store, args.study))
    print("Starting the MLflow UI; this takes a few seconds.", file=sys.stderr, flush=True)
    try:
        with _stop_signals(), serve(store, port) as server:
            _show(args, links, pid=server.pid)
            print("Ctrl-C stops it.", file=sys.stderr, flush=True)
            # In a thread, since some browsers hold the caller until they are closed.
            threading.Thread(target=_open, args=(args, links[0]), daemon=True).start()
            code = server.wait()
    except KeyboardInterrupt:
        print("Stopped.", file=sys.stderr)
        return 0
    print(
        f"The MLflow server ended by itself with code {code}; its log is mlruns/ui-{port}.log.",
        file=sys.stderr,
    )
    return 1


def _links(base: str, experiment: Any) -> list[str]:
    """The addresses to open: a study's saved views, else the experiment's runs, or all experiments."""
    if experiment is not None and PREFIX + TRIALS in experiment.tags:
        return [view_link(base, experiment.experiment_id, view) for view in (TRIALS, CHARTS)]
    return [runs_link(base, experiment.experiment_id if experiment else None)]


def _find(store: str, study: str | None) -> Any:
    """The experiment of a study, or None without a study.

    Raises:
        UserError: the store is missing or does not answer, or holds no such experiment.
    """
    database = Path(store.removeprefix("sqlite:///"))
    if store.startswith("sqlite:///") and not database.is_file():
        raise UserError(
            f"{database}: no such database; run a study first, for example studies/mlp.py."
        )
    if study is not None:
        check_study_name(study)
    client = connect(store)
    if study is None:
        return None
    experiments = client.search_experiments()
    found = [experiment for experiment in experiments if experiment.name == study]
    if not found:
        known = sorted(
            experiment.name for experiment in experiments if experiment.name != "Default"
        )
        raise UserError(
            f"no study {study!r} in this MLflow store; it holds {', '.join(known) or 'none'}."
        )
    return found[0]


def _show(args: Args, links: list[str], **more: Any) -> None:
    for link, label in zip(
        links, [NAMES[TRIALS], NAMES[CHARTS]] if len(links) > 1 else ["Runs"], strict=True
    ):
        print(f"{label}: {link}", flush=True)
    if args.study is not None and report_path(args.study).exists():
        print(f"Report: {report_path(args.study).absolute().as_uri()}", flush=True)
    if args.json:
        print(json.dumps({"url": links[0], **more}), flush=True)


def _open(args: Args, link: str) -> None:
    """Open the link where there is a display; elsewhere webbrowser would start a text browser in this terminal."""
    has_display = (
        sys.platform == "darwin" or "DISPLAY" in os.environ or "WAYLAND_DISPLAY" in os.environ
    )
    if args.browser and has_display:
        webbrowser.open(link)


@contextmanager
def _stop_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP end the block as Ctrl-C does, so that no server is left behind."""

    def stop(number: int, frame: object) -> NoReturn:
        for signum in before:
            signal.signal(
                signum, signal.SIG_IGN
            )  # an impatient second Ctrl-C must not stop the stopping
        raise KeyboardInterrupt

    before = {
        signum: signal.signal(signum, stop)
        for signum in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT)
    }
    try:
        yield
    finally:
        for signum, handler in before.items():
            signal.signal(signum, handler)


if __name__ == "__main__":
    run_script(Args, main)
