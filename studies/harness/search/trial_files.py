"""The files of finished trials: config, samples, and the checkpoints of the best ones."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus
from makemore.engines import TrainResult
from makemore.sampling import sample_words
from studies.harness.store.trials import TrialRecord, dev_loss, ranked
from studies.harness.tracking.sending.tracker import Tracker

N_SAMPLES = 20  # generated words in samples.txt
SAMPLE_LENGTH = 24  # characters; an untrained model would seldom end a word


@dataclass
class TrialFiles:
    """Writes a trial's files to the outbox, and drops the checkpoints of trials that fell behind.

    Attributes:
        keep_models: number of best trials that keep their checkpoint.
    """

    study: optuna.Study
    corpus: Corpus
    tracker: Tracker
    keep_models: int
    _dropped: set[int] = field(default_factory=set)  # numbers of trials, by this launch

    def trim(self) -> None:
        """Drop the checkpoints of all trials beyond `keep_models`, also those of other launches.

        It reads the study, because launches that run at the same time end trials in between.
        """
        for trial in ranked(self.study.get_trials(deepcopy=False))[self.keep_models :]:
            has_model = trial.user_attrs["summary"].get("has_model", False)
            if has_model and trial.number not in self._dropped:
                self._dropped.add(trial.number)
                self.tracker.drop_model(trial.number)

    def write(self, record: TrialRecord, result: TrainResult | None) -> Path:
        """Write the files of an ended trial; returns their folder in the outbox.

        Args:
            record: the trial.
            result: None if the trial was never trained.
        """
        folder = self.tracker.folder(record)
        origin = {
            "study": self.study.study_name,
            "trial": record.number,
            "data_sha256": self.corpus.sha256,
        }
        (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
        if result is None or record.best is None or record.state == "FAIL":
            return folder

        words = sample_words(
            result.model,
            self.corpus.vocab,
            N_SAMPLES,
            seed=record.config.seed,
            max_length=SAMPLE_LENGTH,
        )
        (folder / "samples.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        # A seed repeat needs no checkpoint: the trial that it repeats has one.
        if "repeat_of" not in record.tags and self._is_among_best(record):
            record.has_model = True
            self._write_checkpoint(folder, record, result, origin)
        return folder

    def _is_among_best(self, record: TrialRecord) -> bool:
        """Return whether fewer than `keep_models` trials of the study are better than this one."""
        assert record.best is not None
        loss = record.best.dev_loss
        trials = ranked(self.study.get_trials(deepcopy=False))
        return sum((dev_loss(t) or 0.0) < loss for t in trials) < self.keep_models

    def _write_checkpoint(
        self, folder: Path, record: TrialRecord, result: TrainResult, origin: dict[str, Any]
    ) -> None:
        assert record.best is not None
        losses = {
            "minibatch_loss": record.best.minibatch_loss,
            "dev_loss": record.best.dev_loss,
            "best_step": record.best.step,
        }
        path = folder / "model.safetensors"
        save_checkpoint(path, result.model, self.corpus.vocab, losses=losses, origin=origin)
