"""The function `search`: a study from Python or a notebook."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.config import Config
from makemore.errors import UserError
from studies.harness.api.process import PythonArgs, called_from_python
from studies.harness.api.study import Study
from studies.harness.cli.script import uninterrupted
from studies.harness.store.text import counted

if TYPE_CHECKING:
    from optuna.pruners import BasePruner
    from optuna.samplers import BaseSampler

    from makemore.models import ModelClass
    from studies.harness.search.spaces import Space

# A range of numbers (low, high), a list of choices, or the text that --range takes.
Range = tuple[float, float] | list[Any] | str


def search(
    space: Space,
    base: Config,
    *,
    name: str,
    trials: int = 32,
    steps: int = 5000,
    seed: int | None = None,
    names: Path | str | None = None,
    ranges: Mapping[str, Range] | None = None,
    first: dict[str, Any] | None = None,
    prune: bool = True,
    audit_pruning: float = 0.05,
    repeats: int | None = None,
    finish_best: bool = False,
    minutes: float | None = None,
    device: str = "auto",
    workers: int | None = None,
    storage: str | None = None,
    tracking_uri: str | None = None,
    keep_models: int = 50,
    evaluations: int = 10,
    pruner: BasePruner | None = None,
    make_sampler: Callable[[int], BaseSampler] | None = None,
    model: ModelClass | None = None,
) -> Study:
    """Search hyperparameters: run a study to its total number of trials, and return it.

    The same call continues a study that exists. Ctrl-C, or the interrupt of a notebook's cell,
    stops the study; its unfinished trials train at the next call. A second interrupt raises
    KeyboardInterrupt.

    Args:
        space: (trial, base) -> Config; suggests the searched fields.
        base: the fixed fields.
        name: of the study and of its MLflow experiment.
        trials: total trials of the study, earlier calls included.
        steps: optimizer steps of each trial.
        seed: of the study. Default: 0, or the stored one of a study that exists.
        names: UTF-8 text file with one word per line. Default: the embedded names.
        ranges: other ranges for some parameters: (low, high), or a list of choices.
        first: parameters of the first trial.
        prune: stop trials early if others have lower dev losses at the same step.
        audit_pruning: share of the trials to prune that train to their end, from 0 to 1.
        repeats: most seed repeats of a config, 0 or at least 2. Default: 5, in about 15% of the
            steps.
        finish_best: if the best trial was pruned, train it to its last step after the search.
        minutes: time limit of the search. Default: none.
        device: auto, cpu, cuda, cuda:0 or mps.
        workers: models trained at once. Default: the number of cores, or 256 on each GPU.
        storage: Optuna URL or path of a journal file. Default: mlruns/optuna/NAME.journal.
        tracking_uri: of MLflow. Default: MLFLOW_TRACKING_URI or the database in mlruns/.
        keep_models: number of best trials that keep their checkpoint.
        evaluations: evaluations of each trial, evenly spaced.
        pruner: Optuna's pruner. Default: `studies.harness.search.pruners.default_pruner`.
        make_sampler: seed -> sampler. Default: TPE.
        model: class of your own model, a torch module; see docs/own-study.md. Default: the
            lecture's MLP.

    Raises:
        UserError: an argument, a path or a store cannot be used.
        Outage: the storage or MLflow failed during the search.
    """
    args = PythonArgs(
        study=name,
        names=None if names is None else Path(names),
        seed=seed,
        prune=prune,
        audit_pruning=audit_pruning,
        repeats=repeats,
        range=_range_flags(ranges or {}),
        finish_best=finish_best,
        trials=trials,
        steps=steps,
        minutes=minutes,
        workers=workers,
        device=device,
        storage=storage,
        tracking_uri=tracking_uri,
        keep_models=keep_models,
        evaluations=evaluations,
    )
    with called_from_python(args):
        _check_types(args)
        _check(space, base, evaluations, model, pruner)
        with uninterrupted():
            import studies.harness.search.session  # noqa: F401 (run_study imports it later)
            from studies.harness.search.launch import run_study

        run_study(
            args,
            space,
            base,
            first=first,
            make_sampler=make_sampler,
            pruner=pruner,
            evaluations=evaluations,
            model=model,
        )
        study = Study.load(name, storage, tracking_uri, model)
        if (n_trials := len(study.trials)) < trials:
            print(
                f"Stopped at {n_trials} of {counted(trials, 'trial')}; the same call continues the "
                "study.",
                file=sys.stderr,
            )
        return study


def _check(
    space: Space,
    base: Config,
    evaluations: int,
    model: ModelClass | None,
    pruner: BasePruner | None,
) -> None:
    """Refuse arguments that no flag of a script can have.

    Raises:
        UserError: names the argument.
    """
    if not callable(space):
        raise UserError(
            f"space must be a function (trial, base) -> Config, but is a {type(space).__name__}."
        )
    if not isinstance(base, Config):
        raise UserError(f"base must be a makemore.Config, but is a {type(base).__name__}.")
    if evaluations < 1:
        raise UserError(f"evaluations must be at least 1, but got {evaluations}.")
    if model is not None:
        from makemore.model_class import is_model_class

        if not is_model_class(model):
            raise UserError(
                "model must be a class of torch modules, for example model=WaveNet, "
                f"but is {model!r}."
            )
    if pruner is not None:
        from optuna.pruners import BasePruner

        if not isinstance(pruner, BasePruner):
            raise UserError(f"pruner must be a pruner of Optuna, but is {pruner!r}.")


def _check_types(args: PythonArgs) -> None:
    """Refuse values of other types than the arguments have; a script's flags always have them.

    Raises:
        UserError: names the argument.
    """
    if not isinstance(args.study, str):
        raise UserError(f"name must be a str, but got {args.study!r}.")
    for name in ("trials", "steps", "seed", "repeats", "workers", "keep_models", "evaluations"):
        value = getattr(args, name)
        if value is not None and type(value) is not int:
            raise UserError(f"{name} must be an int, but got {value!r}.")


def _range_flags(ranges: Mapping[str, Range]) -> tuple[str, ...]:
    """Return ranges as the texts of --range."""
    return tuple(f"{name}={_range_text(name, given)}" for name, given in ranges.items())


def _range_text(name: str, given: Range) -> str:
    if isinstance(given, str):
        return given
    if isinstance(given, tuple) and len(given) == 2 and all(map(_is_number, given)):
        return f"{given[0]}:{given[1]}"
    if isinstance(given, list) and given:
        return ",".join(map(str, given))
    raise UserError(f"ranges: {name} must be (low, high) or a list of choices, but got {given!r}.")


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)
