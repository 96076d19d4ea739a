"""Export a trial of a study, by default the winner, as a TOML file that can be trained again.

The [config] table is the input of makemore.trainer and of experiments/retrain.py. The [origin]
table records the study, the trial, the data and the versions. The default path,
experiments/configs/STUDY.toml, is relative to the working directory.
"""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

import json
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from makemore.cli import SWITCH
from makemore.errors import check_output
from studies.harness.cli.args import OUTPUT, STORES
from studies.harness.cli.commands import model_flags, print_next, store_flags
from studies.harness.cli.script import run_script

if TYPE_CHECKING:
    import optuna

    from studies.harness.report.export import Export

CONFIGS = Path("experiments", "configs")


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
    from studies.harness.report.export import export_trial
    from studies.harness.store.study import load_study
    from studies.harness.store.winner import CONFIRMED

    path = check_output(args.out or CONFIGS / f"{args.study}.toml", "--out")
    study = load_study(args.study, args.storage)
    export = export_trial(study, path, args.trial, flags=store_flags(args), force=args.force)

    _report(args, study, export, path)
    if args.json:
        outcome = {
            "file": str(path),
            "study": args.study,
            "trial": export.trial.number,
            "dev_loss": export.origin["dev_loss"],
            **{name: export.origin.get(name) for name in CONFIRMED},
        }
        print(json.dumps(outcome))
    return 0


def _report(args: Args, study: optuna.Study, export: Export, path: Path) -> None:
    """Print the exported trial and the command that trains it again."""
    from studies.harness.cli.terminal import make_console, say
    from studies.harness.store.trials import dev_loss, trial_config
    from studies.harness.store.winner.race import open_repeats_sentence
    from studies.harness.store.winner.winner import describe

    trial, winner = export.trial, export.winner
    sentences = [f"The winner of the study is trial {winner.number}."]
    if trial.number == winner.number:
        sentences = describe(winner)
    console = make_console(stderr=args.json)
    step = trial.user_attrs["summary"]["best_step"]
    losses = f"dev loss {dev_loss(trial):.4f} at step {step:,}"
    say(console, f"Trial {trial.number} of study {args.study}: {losses}.")
    if "repeat_of" in trial.user_attrs:
        say(console, f"It repeats trial {trial.user_attrs['repeat_of']} with another seed.")
    for sentence in [*sentences, open_repeats_sentence(study.get_trials(deepcopy=False))]:
        if sentence:
            say(console, sentence)
    if trial.state.name == "PRUNED":
        steps = trial_config(study, trial).max_steps
        say(console, f"It was pruned; a retraining continues to step {steps:,}.")
    say(console, f"{'Exported to' if export.written else 'Already exported to'} {path}")

    flags = [str(path), *model_flags(study)]
    if names := study.user_attrs.get("names"):
        flags += ["--names", names]
    flags += [*store_flags(args, storage=False), "--seeds", "5"]
    print_next(console, ("train it again with 5 seeds", "experiments/retrain.py", flags))


if __name__ == "__main__":
    run_script(Args, main)
