"""Compare a study's trials in Optuna with its runs in MLflow; --repair corrects what differs."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
from collections import Counter
from dataclasses import KW_ONLY, dataclass
from typing import TYPE_CHECKING, Annotated

from makemore.cli import SWITCH
from studies.harness.cli.script import run_script
from studies.harness.store.paths import MLRUNS

if TYPE_CHECKING:
    import optuna

    from studies.harness.tracking.repairs.doctor import Violation


@dataclass
class Args:
    """Compare a study's trials in Optuna with its runs in MLflow."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    repair: Annotated[bool, SWITCH] = False
    """Repair what differs, and compare again."""
    storage: str | None = None
    """Optuna URL or path of a journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: str | None = None
    """MLflow tracking URI. Default: MLFLOW_TRACKING_URI or the SQLite database in mlruns/."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Return 0 if the stores agree, after the repair if there is one, else 1."""
    # These load torch, optuna and mlflow, which --help does not need.
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.store.study import load_study
    from studies.harness.tracking.connection.connect import connect
    from studies.harness.tracking.connection.find import get_experiment
    from studies.harness.tracking.repairs.doctor import check
    from studies.harness.tracking.repairs.repair import repair_and_send

    study = load_study(args.study, args.storage)
    client = connect(args.tracking_uri)
    experiment_id = get_experiment(client, args.study)
    outbox = MLRUNS / "outbox" / args.study
    console = make_console(stderr=args.json)

    say(console, f"Study {args.study}: {count_trials(study)}.")
    violations = check(study, client, experiment_id, outbox)
    for violation in violations:
        say(console, describe(violation), "red")

    if violations and args.repair:
        repair_and_send(study, client, experiment_id, outbox, violations)
        left = check(study, client, experiment_id, outbox)
        say(console, f"Repaired {len(violations) - len(left)} of {len(violations)}.", "bold")
        violations = left
        for violation in left:
            say(console, describe(violation), "red")

    if not violations:
        say(console, "Optuna and MLflow agree: each finished trial has one run, with its values.")
    elif not args.repair:
        say(console, "To repair this, run the same command with --repair.")
    if args.json:
        found = [{"kind": v.kind, "detail": v.detail} for v in violations]
        print(json.dumps({"study": args.study, "clean": not violations, "violations": found}))
    return 1 if violations else 0


def describe(violation: Violation) -> str:
    """Return a violation as one line."""
    return f"  {violation.kind}: {violation.detail}"


def count_trials(study: optuna.Study) -> str:
    """Return how many trials a study has of each state, as text."""
    from studies.harness.store.trials import is_follow_up

    states: Counter[str] = Counter()
    for trial in study.get_trials(deepcopy=False):
        if is_follow_up(trial):
            states["follow-up"] += 1
        elif "replaced" in trial.user_attrs:
            states["replaced"] += 1
        else:
            states[trial.state.name.lower()] += 1
    return ", ".join(f"{n} {state}" for state, n in sorted(states.items())) or "no trials"


if __name__ == "__main__":
    run_script(Args, main)
