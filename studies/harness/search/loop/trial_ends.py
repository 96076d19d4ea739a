"""The end of a trial: its files, then Optuna's record, then MLflow's run."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import TrialState

from makemore.checkpoint import save_checkpoint
from makemore.data import Corpus
from makemore.diagnostics import diagnose
from makemore.engines import TrainResult
from makemore.model import n_params
from makemore.sampling import sample_words
from studies.harness.search.loop.queue import Active, TrialQueue
from studies.harness.search.loop.trial_table import TrialTable
from studies.harness.store.launches import requeue
from studies.harness.store.trials import OUT_OF_MEMORY, TrialRecord, rank
from studies.harness.tracking.sending.tracker import Tracker

N_SAMPLES = 20  # generated words in samples.txt
SAMPLE_LENGTH = 24  # characters; an untrained model would seldom end a word


@dataclass
class TrialEnds:
    """Stores how trials end.

    Args:
        keep_models: number of best trials that keep their checkpoint.

    Attributes:
        n_ended: trials that ended in this launch, follow-up trials included.
        train_s: seconds of training, summed over these trials.
    """

    queue: TrialQueue
    corpus: Corpus
    tracker: Tracker
    keep_models: int
    n_ended: int = 0
    train_s: float = 0.0
    _lowest: float = math.inf  # dev loss of the study, seed repeats excluded

    def __post_init__(self) -> None:
        study, table = self.queue.study, self.queue.table.refresh()
        self._files = TrialFiles(study, table, self.corpus, self.tracker, self.keep_models)
        self._lowest = table.ranked[0][0] if table.ranked else math.inf
        self._files.trim()
        # A later launch with the same number need not look for models to drop.
        study.set_user_attr("keep_models", self.keep_models)

    def store(
        self, active: Active, result: TrainResult | None, state: TrialState, reason: str
    ) -> Path:
        """Write a trial's files, then tell Optuna; returns the folder of the files.

        Args:
            active: the trial.
            result: None if the engine refused the model or lost it.
            state: how it ended.
            reason: why it ended.
        """
        record = active.record
        record.state, record.reason, record.ended = state.name, reason, time.time()
        if result is not None:
            record.metrics["n_params"] = result.n_params
        elif self.queue.study.user_attrs.get("model") is None:
            record.metrics["n_params"] = n_params(record.config, len(self.corpus.vocab))
        record.metrics["seconds"] = result.seconds if result else 0.0
        self.train_s += record.metrics["seconds"]
        if result and record.best and state != TrialState.FAIL and reason != OUT_OF_MEMORY:
            record.metrics |= diagnose(result.model, record.best, self.corpus)
        folder = self._files.write(record, result)
        self.queue.tell(active, state)
        self.n_ended += 1
        return folder

    def publish(self, record: TrialRecord, folder: Path) -> None:
        """Drop the models that fell behind, and hand a stored trial to the tracker."""
        measured = record.best is not None and record.state != TrialState.FAIL.name
        if measured and "repeat_of" not in record.tags:
            assert record.best is not None
            self._lowest = min(self._lowest, record.best.dev_loss)
        self._files.trim()
        self.tracker.finish(record, folder, self._lowest if math.isfinite(self._lowest) else None)

    def give_back(self, active: Active, reason: str) -> None:
        """Requeue a trial, unless another launch has it, and end its run as interrupted."""
        if self.queue.owns(active):
            requeue(self.queue.study, active.trial._trial_id)
        record = active.record
        record.state, record.reason, record.ended = "INTERRUPTED", reason, time.time()
        self.tracker.finish(record, None, None)


@dataclass
class TrialFiles:
    """Writes a trial's files to the outbox, and drops the checkpoints of trials that fell behind.

    Attributes:
        keep_models: number of best trials that keep their checkpoint.
    """

    study: optuna.Study
    table: TrialTable
    corpus: Corpus
    tracker: Tracker
    keep_models: int
    _n_read: int = 0  # trials of `table.finished` whose models are known
    _keepers: set[int] = field(default_factory=set)  # numbers of trials with a model

    def trim(self) -> None:
        """Drop the checkpoints of all trials beyond `keep_models`, also those of other launches.

        It reads the study, because launches that run at the same time end trials in between.
        """
        table = self.table.refresh()
        for trial in table.finished[self._n_read :]:
            if trial.user_attrs.get("summary", {}).get("has_model", False):
                self._keepers.add(trial.number)
        self._n_read = len(table.finished)
        if len(table.ranked) <= self.keep_models:
            return
        first_dropped = table.ranked[self.keep_models]
        for number in sorted(self._keepers):
            own_rank = rank(table.trials[number])
            if own_rank is not None and own_rank >= first_dropped:
                self._keepers.remove(number)
                self.tracker.drop_model(number)

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
        if (model := self.study.user_attrs.get("model")) is not None:
            origin["model"] = model
        (folder / "config.toml").write_text(record.config.to_toml(origin=origin))
        if result is None or record.best is None or record.state == "FAIL":
            return folder

        # A seed repeat needs no checkpoint: the trial that it repeats has one.
        if "repeat_of" not in record.tags and self._is_among_best(record):
            record.has_model = True
            self._write_model(folder, record, result, origin)
        return folder

    def _is_among_best(self, record: TrialRecord) -> bool:
        """Return whether fewer than `keep_models` trials of the study are better than this one."""
        assert record.best is not None
        return self.table.refresh().n_better(record.best.dev_loss) < self.keep_models

    def _write_model(
        self, folder: Path, record: TrialRecord, result: TrainResult, origin: dict[str, Any]
    ) -> None:
        """Write the checkpoint, and words sampled from it."""
        assert record.best is not None
        losses = {
            "minibatch_loss": record.best.minibatch_loss,
            "dev_loss": record.best.dev_loss,
            "best_step": record.best.step,
        }
        model, vocab = result.model, self.corpus.vocab
        seed = record.config.seed
        words = sample_words(model, vocab, N_SAMPLES, seed=seed, max_length=SAMPLE_LENGTH)
        (folder / "samples.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
        path = folder / "model.safetensors"
        save_checkpoint(path, model, vocab, losses=losses, origin=origin)
