"""A trial of a study, by default its best, as a config file that can be trained again.

The file is experiments/configs/STUDY.toml below the working directory, as mlruns is; from a checkout that is the folder
beside this script. Its [config] is what makemore.trainer and experiments/retrain.py read, its [origin] says where it
comes from.
"""

from __future__ import annotations

import json
import shlex
import subprocess
import time
import tomllib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import Annotated, Any

import optuna
from cyclopts import Parameter
from optuna.trial import FrozenTrial, TrialState

from makemore.cli import SWITCH
from makemore.errors import UserError
from studies.harness.cli.commands import print_next, store_flags
from studies.harness.cli.script import run_script
from studies.harness.cli.terminal import make_console, say
from studies.harness.store.study import load_study
from studies.harness.store.text import without_password
from studies.harness.store.trials import counts, dev_loss, ranked, trial_config
from studies.harness.tracking.client import versions

CONFIGS = Path("experiments", "configs")
# What may differ between two exports of the same trial.
CIRCUMSTANCES = ("command", "exported", "commit", "versions", "trials")


@dataclass
class Args:
    """Write the config of a study's best trial to a TOML file."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    trial: int | None = None
    """Number of the trial; the one of lowest dev loss if not given."""
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None
    """Where the config goes; experiments/configs/STUDY.toml if not given."""
    force: Annotated[bool, SWITCH] = False
    """Write over a file that exists."""
    storage: str | None = None
    """Optuna URL or path of a journal file; mlruns/optuna/STUDY.journal if not given."""
    tracking_uri: str | None = None
    """MLflow tracking URI, for the next command that is shown."""
    json: Annotated[bool, SWITCH] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Write the file. Returns the exit code."""
    study = load_study(args.study, args.storage)
    trial = _choose(study, args.trial)
    path = args.out or CONFIGS / f"{args.study}.toml"
    config, origin = trial_config(study, trial), _origin(args, study, trial)
    written = _write(path, config.to_toml(origin=origin), force=args.force)
    console = make_console(stderr=args.json)
    best = f", the best of {origin['trials']}" if args.trial is None else ""
    losses = f"dev loss {origin['dev_loss']:.4f} at step {origin['best_step']:,}"
    say(console, f"Trial {trial.number} of study {args.study}{best}: {losses}.")
    if trial.state == TrialState.PRUNED:
        say(console, f"It was pruned; trained again, it goes on to step {config.max_steps:,}.")
    say(console, f"{'Exported to' if written else 'Already exported to'} {path}")
    names = study.user_attrs.get("names")
    again = [str(path), *(["--names", names] if names else []), *store_flags(args, storage=False)]
    print_next(
        console, ("train it again with 5 seeds", "experiments/retrain.py", [*again, "--seeds", "5"])
    )
    if args.json:
        outcome = {
            "file": str(path),
            "study": args.study,
            "trial": trial.number,
            "dev_loss": origin["dev_loss"],
        }
        print(json.dumps(outcome))
    return 0


def _choose(study: optuna.Study, number: int | None) -> FrozenTrial:
    """The trial of a number, or the one of lowest dev loss.

    Raises:
        UserError: there is none, or it has no dev loss.
    """
    trials = study.get_trials(deepcopy=False)
    best = ranked(trials)
    if not best:
        raise UserError(
            f"study {study.study_name!r} has no finished trial yet; let it run until one has a dev loss."
        )
    if number is None:
        return best[0]
    if not 0 <= number < len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {number}; its trials are 0 to {len(trials) - 1}."
        )
    if dev_loss(trials[number]) is None:
        summary = trials[number].user_attrs.get("summary", {})
        state = summary.get("reason") or trials[number].state.name.lower()
        raise UserError(
            f"trial {number} of study {study.study_name!r} has no dev loss ({state}); choose another."
        )
    return trials[number]


def _origin(args: Args, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    summary, attrs = trial.user_attrs["summary"], study.user_attrs
    flags = [args.study] + (["--trial", str(args.trial)] if args.trial is not None else [])
    flags += [without_password(flag) for flag in store_flags(args)]
    origin = {
        "study": args.study,
        "trial": trial.number,
        "state": trial.state.name,
        "dev_loss": summary["dev_loss"],
        "best_step": summary["best_step"],
        "trials": sum(
            counts(t) and t.state.is_finished() for t in study.get_trials(deepcopy=False)
        ),
        "data": attrs["data"],
        "data_sha256": attrs["data_sha256"],
        "commit": find_commit(),
        "command": shlex.join(["python", "experiments/export.py", *flags]),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
    }
    return {key: value for key, value in origin.items() if value is not None}


def find_commit() -> str | None:
    """The commit of this checkout, followed by -dirty where files differ from it; None without git."""
    root = Path(__file__).resolve().parents[1]
    if not (
        root / ".git"
    ).exists():  # installed elsewhere, perhaps inside another project's repository
        return None
    command = [
        "git",
        "-C",
        str(root),
        "describe",
        "--always",
        "--dirty",
        "--abbrev=40",
        "--exclude=*",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _write(path: Path, text: str, *, force: Annotated[bool, SWITCH]) -> bool:
    """Write the file whole; returns False when the same trial already stands in it.

    Raises:
        UserError: another file stands there and may not be replaced, or it cannot be written.
    """
    try:
        if path.exists() and not force:
            if _essence(path.read_text(encoding="utf-8")) == _essence(text):
                return False
            raise UserError(
                f"{path}: exists and holds something else; give --force to write over it, or another -o."
            )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.tmp")
        temporary.write_text(text, encoding="utf-8")
        temporary.replace(path)
    except OSError as error:
        raise UserError(f"{path}: cannot be written ({error.strerror}); give another -o.") from None
    return True


def _essence(text: str) -> dict[str, Any] | None:
    """What an exported file says of its trial, without the circumstances of the export."""
    try:
        tables = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return None
    origin = {
        key: value for key, value in tables.get("origin", {}).items() if key not in CIRCUMSTANCES
    }
    return {**tables, "origin": origin}


if __name__ == "__main__":
    run_script(Args, main)
