"""Export a trial of a study, by default the winner, as a TOML file that can be trained again.

The [config] table is the input of makemore.trainer and of experiments/retrain.py. The [origin]
table records the study, the trial, the data and the versions. The default path,
experiments/configs/STUDY.toml, is relative to the working directory.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
import os
import shlex
import subprocess
import time
import tomllib
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.errors import UserError, check_output, writing
from studies.harness.cli.args import OUTPUT, STORES
from studies.harness.cli.commands import model_flags, print_next, store_flags
from studies.harness.cli.script import run_script
from studies.harness.store.text import without_password

if TYPE_CHECKING:
    import optuna
    from optuna.trial import FrozenTrial

    from studies.harness.store.winner.winner import Winner

CONFIGS = Path("experiments", "configs")
# Fields of [origin] that may differ between two exports of the same trial.
EXPORT_FIELDS = ("command", "exported", "commit", "versions", "trials")


@dataclass
class Args:
    """Write the config of a study's winner to a TOML file."""

    study: str
    """Name of the study."""
    _: KW_ONLY
    trial: int | None = None
    """Number of the trial. Default: the winner, which the seed repeats confirm."""
    out: Annotated[Path | None, Parameter(name=("--out", "-o"))] = None
    """Config file to write. Default: experiments/configs/STUDY.toml."""
    force: Annotated[bool, SWITCH] = False
    """Overwrite a file that exists."""
    storage: Annotated[str | None, Parameter(group=STORES)] = None
    """Optuna URL or path of a journal file. Default: mlruns/optuna/STUDY.journal."""
    tracking_uri: Annotated[str | None, Parameter(group=STORES)] = None
    """MLflow tracking URI to put into the proposed command. Default: none."""
    json: Annotated[bool, SWITCH, Parameter(group=OUTPUT)] = False
    """Print one JSON object as the last line of standard output."""


def main(args: Args) -> int:
    """Write the config file. Returns the exit code."""
    from studies.harness.store.study import load_study
    from studies.harness.store.trials import trial_config
    from studies.harness.store.winner import CONFIRMED
    from studies.harness.store.winner.winner import describe

    path = check_output(args.out or CONFIGS / f"{args.study}.toml", "--out")
    study = load_study(args.study, args.storage)
    winner = _find_winner(study)
    trial = winner.trial if args.trial is None else _find_trial(study, args.trial)
    config = trial_config(study, trial)
    origin = _origin(args, study, trial)
    written = _write_config(path, config.to_toml(origin=origin), force=args.force)

    sentences = [f"The winner of the study is trial {winner.number}."]
    if trial.number == winner.number:
        sentences = describe(winner)
    _report(args, study, trial, sentences, path, written)
    if args.json:
        outcome = {
            "file": str(path),
            "study": args.study,
            "trial": trial.number,
            "dev_loss": origin["dev_loss"],
            **{name: origin.get(name) for name in CONFIRMED},
        }
        print(json.dumps(outcome))
    return 0


def _find_winner(study: optuna.Study) -> Winner:
    """Return the winner.

    Raises:
        UserError: no trial has a dev loss.
    """
    from studies.harness.store.winner.winner import find_winner

    winner = find_winner(study.get_trials(deepcopy=False))
    if winner is None:
        raise UserError(
            f"study {study.study_name!r} has no finished trial yet; "
            "let it run until a trial has a dev loss."
        )
    return winner


def _find_trial(study: optuna.Study, number: int) -> FrozenTrial:
    """Return the trial with this number.

    Raises:
        UserError: no such trial exists, or it has no dev loss.
    """
    from studies.harness.store.trials import dev_loss

    trials = study.get_trials(deepcopy=False)
    if not 0 <= number < len(trials):
        raise UserError(
            f"study {study.study_name!r} has no trial {number}; "
            f"its trials are 0 to {len(trials) - 1}."
        )
    if dev_loss(trials[number]) is None:
        summary = trials[number].user_attrs.get("summary", {})
        state = summary.get("reason") or trials[number].state.name.lower()
        raise UserError(
            f"trial {number} of study {study.study_name!r} has no dev loss ({state}); "
            "choose another trial."
        )
    return trials[number]


def _origin(args: Args, study: optuna.Study, trial: FrozenTrial) -> dict[str, Any]:
    """Return the [origin] table: where the config comes from."""
    from studies.harness.store.trials import counts
    from studies.harness.store.winner.noise import confirmed_means, measure_noise
    from studies.harness.tracking.runs import versions

    summary = trial.user_attrs["summary"]
    trials = study.get_trials(deepcopy=False)
    noise = measure_noise(trials)
    group = next((g for g in noise.groups if g.trial == trial.number), None) if noise else None
    flags = [args.study]
    if args.trial is not None:
        flags += ["--trial", str(args.trial)]
    flags += [without_password(flag) for flag in store_flags(args)]

    origin = {
        "study": args.study,
        "trial": trial.number,
        "state": trial.state.name,
        "dev_loss": summary["dev_loss"],
        "best_step": summary["best_step"],
        **confirmed_means(group),
        "trials": sum(counts(t) and t.state.is_finished() for t in trials),
        "data": study.user_attrs["data"],
        "data_sha256": study.user_attrs["data_sha256"],
        "model": study.user_attrs.get("model"),
        "commit": find_commit(),
        "command": shlex.join(["python", "experiments/export.py", *flags]),
        "exported": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "versions": versions(),
    }
    return {key: value for key, value in origin.items() if value is not None}


def find_commit() -> str | None:
    """Return this checkout's commit, with -dirty if files differ from it, or None without git."""
    root = Path(__file__).resolve().parents[1]
    # An installed package may be inside the repository of another project.
    if not (root / ".git").exists():
        return None
    describe = ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *describe], capture_output=True, text=True, timeout=30
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None


def _write_config(path: Path, text: str, *, force: bool) -> bool:
    """Write the file atomically. Returns False if it already holds the same trial.

    Raises:
        UserError: the file holds something else and `force` is off, or it cannot be written.
    """
    with writing(path, "--out"):
        if path.exists() and not force:
            before, after = _parse_export(path.read_bytes()), _parse_export(text.encode())
            if before == after:
                return False
            if _without_mean(before) != _without_mean(after):
                raise UserError(
                    f"{path}: exists and is not the config of this trial; "
                    "give --force to overwrite it, or give --out another path."
                )
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            temporary.write_text(text, encoding="utf-8")
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)
    return True


def _parse_export(raw: bytes) -> dict[str, Any] | None:
    """Return the tables of an exported file, or None if it is not TOML.

    Fields of [origin] that may differ between two exports of a trial are left out.
    """
    try:
        tables = tomllib.loads(raw.decode("utf-8"))
    except ValueError:  # not UTF-8, or not TOML
        return None
    origin = tables.get("origin", {})
    if not isinstance(origin, dict):
        return None
    kept = {key: value for key, value in origin.items() if key not in EXPORT_FIELDS}
    return {**tables, "origin": kept}


def _without_mean(tables: dict[str, Any] | None) -> dict[str, Any] | None:
    """Return the tables without the mean over seed repeats, which further repeats change."""
    if tables is None:
        return None
    origin = {k: v for k, v in tables["origin"].items() if not k.startswith("confirmed_")}
    return {**tables, "origin": origin}


def _report(
    args: Args,
    study: optuna.Study,
    trial: FrozenTrial,
    sentences: list[str],
    path: Path,
    written: bool,
) -> None:
    """Print the exported trial and the command that trains it again.

    Args:
        sentences: about the winner.
    """
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.store.trials import dev_loss, trial_config

    console = make_console(stderr=args.json)
    step = trial.user_attrs["summary"]["best_step"]
    losses = f"dev loss {dev_loss(trial):.4f} at step {step:,}"
    say(console, f"Trial {trial.number} of study {args.study}: {losses}.")
    for sentence in sentences:
        say(console, sentence)
    if trial.state.name == "PRUNED":
        steps = trial_config(study, trial).max_steps
        say(console, f"It was pruned; a retraining continues to step {steps:,}.")
    say(console, f"{'Exported to' if written else 'Already exported to'} {path}")

    flags = [str(path), *model_flags(study)]
    if names := study.user_attrs.get("names"):
        flags += ["--names", names]
    flags += [*store_flags(args, storage=False), "--seeds", "5"]
    print_next(console, ("train it again with 5 seeds", "experiments/retrain.py", flags))


if __name__ == "__main__":
    run_script(Args, main)
