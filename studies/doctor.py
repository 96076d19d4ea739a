"""Hold Optuna's store and MLflow's against each other: counts, and whatever differs. With --repair, mend it."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from typing import Annotated

import optuna
from rich.console import Console

from makemore.cli import SWITCH
from studies.harness.cli.script import run_script
from studies.harness.store.launches import Launch
from studies.harness.store.paths import MLRUNS
from studies.harness.store.study import load_study
from studies.harness.store.trials import is_follow_up
from studies.harness.tracking.client import connect, get_experiment
from studies.harness.tracking.doctor import Violation, check, repair
from studies.harness.tracking.tracker import Tracker

PATIENCE = 30.0  # seconds without progress after which a repair gives up


@dataclass
class Args:
    """Check a study's two stores."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    repair: Annotated[bool, SWITCH] = False
    """Mend what is found, and say what was done."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI; the SQLite database in mlruns/ if not given."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Returns 0 when the stores agree (after a repair, too), else 1."""
    study = load_study(args.study, args.storage)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)
    outbox = MLRUNS / "outbox" / args.study
    console = Console(
        stderr=args.json, width=None if Console().is_terminal else 160, highlight=False
    )
    violations = check(study, client, experiment_id, outbox)
    _print(console, study, violations)
    if violations and args.repair:
        _repair(study, client, experiment_id, violations)
        left = check(study, client, experiment_id, outbox)
        console.print(f"Mended {len(violations) - len(left)} of {len(violations)}.", style="bold")
        violations = left
        if left:
            _print(console, study, left)
    if args.json:
        found = [{"kind": v.kind, "detail": v.detail} for v in violations]
        print(json.dumps({"study": args.study, "clean": not violations, "violations": found}))
    return 1 if violations else 0


def _repair(
    study: optuna.Study, client: object, experiment_id: str, violations: list[Violation]
) -> None:
    launch = Launch.begin(study)
    dataset = {
        "name": study.user_attrs["data"],
        "sha256": study.user_attrs["data_sha256"],
        "source": "unknown",
    }
    tracker = Tracker(
        client, experiment_id, MLRUNS / "outbox" / study.study_name, launch.id, dataset
    )
    try:
        repair(study, tracker, violations)
        tracker.begin(f"repair {launch.id}", {"study": study.study_name, "launch": launch.id}, {})
        tracker.finish_parent("FINISHED")
        tracker.close(PATIENCE)
    finally:
        launch.end()


def _print(console: Console, study: optuna.Study, violations: list[Violation]) -> None:
    trials = study.get_trials(deepcopy=False)
    states = Counter(
        "beyond the total" if is_follow_up(trial) else "replaced" if "replaced" in trial.user_attrs
        else trial.state.name.lower() for trial in trials
    )  # fmt: skip
    counted = ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "no trials"
    console.print(
        f"Study {study.study_name}: {counted}. Optuna's record against MLflow's runs, artifacts and outbox:"
    )
    for violation in violations:
        console.print(f"  [red]{violation.kind}[/red]: {violation.detail}", soft_wrap=True)
    if not violations:
        console.print(
            "  every trial that ended has one run of the same state, parameters and dev loss."
        )


if __name__ == "__main__":
    run_script(Args, main)
