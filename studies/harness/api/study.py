"""The class `Study`: the results of a study, for Python and notebooks."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from makemore.config import Config
from studies.harness.api.plots import Page, Plots
from studies.harness.api.process import PythonArgs, called_from_python, in_python
from studies.harness.cli.commands import store_flags
from studies.harness.store.text import counted

if TYPE_CHECKING:
    import optuna
    import pandas as pd

    from makemore.models import ModelClass
    from studies.harness.store.winner.winner import Winner

N_SHOWN = 5  # trials in the table that a notebook shows


@dataclass(frozen=True)
class Best:
    """The winner of a study. Losses are in nats per character.

    Attributes:
        config: its config, with the seed of its trial.
        params: its searched parameters.
        loss: dev loss of its trial in the search.
        mean: mean dev loss of its seed repeats; None if it is not confirmed.
        ci: half of the 95% interval of the mean; None if it is not confirmed.
        n: number of seed repeats in the mean.
        trials: number of its trial, then those of its seed repeats.
        sentences: the loss, and how certain it is.
    """

    config: Config
    params: dict[str, Any]
    loss: float
    mean: float | None
    ci: float | None
    n: int
    trials: tuple[int, ...]
    sentences: tuple[str, ...]

    @property
    def trial(self) -> int:
        """Number of its trial."""
        return self.trials[0]

    def __repr__(self) -> str:
        return "\n".join([*self.sentences, ", ".join(map(_parameter, self.params.items()))])


def _parameter(item: tuple[str, Any]) -> str:
    name, value = item
    return f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


class Study:
    """A study, read from its stores each time that it is asked.

    `search` returns one, and `Study.load` opens one by its name.

    Attributes:
        name: of the study and of its MLflow experiment.
        plot: the pictures of the study.
    """

    def __init__(
        self, study: optuna.Study, args: PythonArgs, model: ModelClass | None = None
    ) -> None:
        self.name = study.study_name
        self.plot = Plots(study)
        self._study = study
        self._args = args
        self._model = model

    @classmethod
    def load(
        cls,
        name: str,
        storage: str | None = None,
        tracking_uri: str | None = None,
        model: ModelClass | None = None,
    ) -> Study:
        """Open a study by its name.

        Args:
            name: of the study.
            storage: Optuna URL or path of a journal file. Default: mlruns/optuna/NAME.journal.
            tracking_uri: of MLflow, for the report. Default: MLFLOW_TRACKING_URI or the database
                in mlruns/.
            model: class of the study's models, for samples in the report. Default: the MLP.

        Raises:
            UserError: the study does not exist or has another model, or the storage cannot be used.
        """
        args = PythonArgs(study=name, storage=storage, tracking_uri=tracking_uri)
        with called_from_python(args):
            from studies.harness.store.study import load_study

            study = load_study(name, storage)
            if model is not None:
                from makemore.model_class import check_class

                check_class(f"{name}: is a study", study.user_attrs.get("model"), model)
            return cls(study, args, model)

    @property
    def best(self) -> Best:
        """The winner, confirmed by its seed repeats.

        Raises:
            UserError: no trial has a dev loss yet.
        """
        from makemore.models import config_class_of
        from studies.harness.report.export import require_winner
        from studies.harness.store.trials import trial_config
        from studies.harness.store.winner.winner import describe

        with called_from_python(self._args):
            winner = require_winner(self._study)
            group = winner.group
            config = trial_config(self._study, winner.trial)
            if self._model is not None:
                config = config_class_of(self._model)(**config.model_dump())
            return Best(
                config=config,
                params=dict(winner.trial.params),
                loss=winner.own,
                mean=group.mean if group else None,
                ci=group.margin if group else None,
                n=group.n if group else 0,
                trials=(winner.number, *self._repeats(winner)),
                sentences=tuple(describe(winner)),
            )

    def _repeats(self, winner: Winner) -> list[int]:
        """Return the numbers of the complete seed repeats of the winner."""
        from optuna.trial import TrialState

        return [
            trial.number
            for trial in self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            if trial.user_attrs.get("repeat_of") == winner.number
        ]

    # ---- tables

    @property
    def trials(self) -> pd.DataFrame:
        """One row for each trial that counts, the winner first; columns as in `all_trials`."""
        from studies.harness.store.trials import counts

        frame = self.all_trials
        numbers = [t.number for t in self._study.get_trials(deepcopy=False) if counts(t)]
        return frame[frame.trial.isin(numbers)].reset_index(drop=True)

    @property
    def all_trials(self) -> pd.DataFrame:
        """One row for each trial, also for waiting trials, seed repeats and replaced ones.

        The columns are those of trials.csv: trial, state, reason, dev_loss (nats per character),
        confirmed_dev_loss, the searched parameters, seconds, n_params and others; see
        `studies.harness.report.results.trials_frame`.
        """
        from studies.harness.report.results import trials_frame

        with called_from_python(self._args):
            return trials_frame(self._study)

    @property
    def curves(self) -> pd.DataFrame:
        """One row for each evaluation of the ended trials that count, ordered by time.

        Columns: trial, step, minibatch_loss and dev_loss (nats per character), lr, time (seconds
        since the epoch).
        """
        from studies.harness.report.results import points_frame
        from studies.harness.store.trials import counts

        with called_from_python(self._args):
            return points_frame([t for t in self._study.get_trials(deepcopy=False) if counts(t)])

    # ---- files

    def report(self) -> Page:
        """Write the report again, and return it; a notebook shows it in a frame.

        Raises:
            UserError: MLflow does not answer, or the page cannot be written.
        """
        from studies.harness.search.finish import write_again
        from studies.harness.store.paths import report_path

        args = self._args
        stored = self._study.user_attrs.get("names")
        path = report_path(self.name)
        with called_from_python(args):
            args.names = Path(stored) if stored else None
            return Page(path, in_python(write_again(args, self._study, path, self._model)))

    def export(self, path: Path | str, trial: int | None = None, *, force: bool = False) -> Path:
        """Write a trial's config as TOML, to be trained again; return the path.

        Args:
            path: the file.
            trial: number of the trial. Default: the winner.
            force: overwrite a file that holds something else.

        Raises:
            UserError: the trial has no dev loss, or the file cannot be written.
        """
        from studies.harness.report.export import export_trial

        path = Path(path)
        with called_from_python(self._args):
            export_trial(self._study, path, trial, flags=store_flags(self._args), force=force)
        return path

    # ---- display

    def __repr__(self) -> str:
        return "\n".join([self._heading(), *self._sentences()])

    def _repr_html_(self) -> str:
        from studies.harness.report.page.markup import paragraph, table

        frame = self.trials[:N_SHOWN]
        names = [name for name in self._study.user_attrs.get("space", {}) if name in frame]
        columns = ["trial", "dev_loss", "confirmed_dev_loss", *names, "best_step", "state"]
        rows = frame[columns].astype(object).to_numpy().tolist()
        parts = [paragraph(self._heading()), table(columns, rows)]
        return "".join([*parts, paragraph(*self._sentences())])

    def _heading(self) -> str:
        from studies.harness.store.winner.follow_ups import summarize

        summary = summarize(self._study.get_trials(deepcopy=False))
        states = ", ".join(f"{summary[name]} {name}" for name in ("complete", "pruned", "failed"))
        return f"Study {self.name}: {counted(summary['trials'], 'trial')}, {states}."

    def _sentences(self) -> list[str]:
        """Return the sentences about the winner."""
        from studies.harness.store.winner.race import open_repeats_sentence
        from studies.harness.store.winner.winner import describe, find_winner

        trials = self._study.get_trials(deepcopy=False)
        winner = find_winner(trials)
        sentences = describe(winner) if winner else ["No trial has a dev loss yet."]
        return [*sentences, *filter(None, [open_repeats_sentence(trials)])]
