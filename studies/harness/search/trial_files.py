"""The files of finished trials: config, samples, and the checkpoints of the best ones."""

from __future__ import annotations

import bisect
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna

from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus
from makemore.engines import TrainResult
from makemore.sampling import sample_words
from studies.harness.store.trials import TrialRecord, dev_loss, ranked
from studies.harness.tracking.tracker import Tracker

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
    _kept: list[tuple[float, int]] = field(default_factory=list)  # (dev loss, number), rising

    def resume(self) -> None:
        """Take over the checkpoints of earlier launches, and drop those beyond `keep_models`."""
        best = ranked(self.study.get_trials(deepcopy=False))
        self._kept = [(dev_loss(t) or 0.0, t.number) for t in best[: self.keep_models]]

        before = self.study.user_attrs.get("keep_models", self.keep_models)
        for trial in best[self.keep_models : before]:
            self.tracker.drop_model(trial.number)
        if before != self.keep_models or "keep_models" not in self.study.user_attrs:
            self.study.set_user_attr("keep_models", self.keep_models)

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
        if "repeat_of" not in record.tags and self._is_kept(record):
            self._write_checkpoint(folder, record, result, origin)
        return folder

    def _is_kept(self, record: TrialRecord) -> bool:
        """Rank the trial and drop the checkpoints beyond `keep_models`.

        Returns:
            Whether the trial keeps its own checkpoint.
        """
        assert record.best is not None
        bisect.insort(self._kept, (record.best.dev_loss, record.number))
        for _, number in self._kept[self.keep_models :]:
            if number != record.number:
                self.tracker.drop_model(number)
        del self._kept[self.keep_models :]
        return any(number == record.number for _, number in self._kept)

    def _write_checkpoint(
        self, folder: Path, record: TrialRecord, result: TrainResult, origin: dict[str, Any]
    ) -> None:
        assert record.best is not None
        losses = {
            "train_loss": record.best.train_loss,
            "dev_loss": record.best.dev_loss,
            "best_step": record.best.step,
        }
        path = folder / "model.safetensors"
        save_checkpoint(path, result.model, self.corpus.vocab, losses=losses, origin=origin)
