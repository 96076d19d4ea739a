"""The loop of a study: outcomes of trials, audits, kept checkpoints, seed repeats."""

from __future__ import annotations

import errno
import json
from collections.abc import Callable
from typing import Any

import optuna
import pytest
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, TrialState

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import EngineFailed, Outcome
from makemore.engines.cpu.engine import CpuEngine, Slot
from makemore.errors import ModelTooLarge, UserError
from studies.harness.report.results import trials_frame
from studies.harness.search import opening
from studies.harness.store import launches
from studies.harness.store.study import load_study
from studies.harness.store.trials import dev_loss, has_diverged, ranked, was_pruned_early
from tests.studies.conftest import (
    Launcher,
    artifacts_of,
    outcomes_of,
    runs_by_trial,
    runs_of,
    trials_of,
    violations,
)

# ---- pruned and diverged trials


def test_pruned_run_is_killed_with_reason(launch: Launcher) -> None:
    launch(trials=14)

    pruned = [trial for trial in trials_of("small") if trial.state == TrialState.PRUNED]
    assert pruned
    runs = runs_by_trial("small")
    for trial in pruned:
        run = runs[trial.number]
        assert (run.info.status, run.data.tags["state"]) == ("KILLED", "PRUNED")
        assert run.data.tags["reason"].startswith(("pruned", "diverged at step"))
        assert run.data.metrics["dev_loss"] == dev_loss(trial) == trial.value
    assert violations("small") == []


def test_diverged_trial_is_pruned_with_its_step(launch: Launcher) -> None:
    def explode(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e3, 1e4, log=True))

    assert launch(space=explode, base=Config(init="lecture"), first=None, trials=2) == 0

    for trial in trials_of("small"):
        assert trial.state == TrialState.PRUNED
        assert trial.user_attrs["summary"]["reason"].startswith("diverged at step")
    # MLflow stores an infinite metric as 1.8e308, which spoils the axes of its charts.
    for run in runs_of("small"):
        assert all(abs(value) < 1e300 for value in run.data.metrics.values())
    assert violations("small") == []


class PrunesEarly(BasePruner):
    """Stops every trial but the first at its second evaluation.

    Args:
        fails: the disk is full in the moment of the first such decision.
    """

    def __init__(self, fails: bool = False) -> None:
        self.fails = fails

    def prune(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        stops = trial.number > 0 and len(trial.intermediate_values) == 2
        if stops and self.fails:
            raise OSError(errno.ENOSPC, "No space left on device")
        return stops


def test_pruning_at_last_reported_step_is_repeated(launch: Launcher) -> None:
    launch(study="whole", trials=3, workers=1, audit_pruning=0, pruner=PrunesEarly())
    with pytest.raises(OSError, match="No space left"):
        launch(study="cut", trials=3, workers=1, audit_pruning=0, pruner=PrunesEarly(fails=True))
    cut = trials_of("cut")[1]
    assert (cut.state, len(cut.intermediate_values)) == (TrialState.WAITING, 2)

    launch(study="cut", trials=3, workers=1, audit_pruning=0, pruner=PrunesEarly())

    assert outcomes_of("cut") == outcomes_of("whole")


def test_real_study_moves_away_from_divergence(launch: Launcher) -> None:
    def space(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-3, 1e6, log=True))

    base = Config(init="lecture")
    assert launch(space=space, base=base, first=None, trials=40, workers=1, prune=False) == 0

    diverged = [has_diverged(trial) for trial in trials_of("small")]
    # The first ten are random; later proposals diverge less often.
    assert sum(diverged[:10]) >= 3
    assert sum(diverged[-20:]) < 2 * sum(diverged[:10])
    for trial in trials_of("small"):
        assert bool(trial.constraints) == has_diverged(trial)


# ---- audited trials


def test_audited_trial_trains_to_its_end(launch: Launcher) -> None:
    launch(study="pruned", trials=14, workers=1, audit_pruning=0.0)
    launch(trials=14, workers=1, audit_pruning=1.0)

    trials = trials_of("small")
    audited = [t for t in trials if "audited" in t.user_attrs]
    assert audited and not any(was_pruned_early(t) for t in trials)
    # The first trial that was pruned without audits is the first audited one, at the same step.
    first = next(t for t in trials_of("pruned") if was_pruned_early(t))
    assert audited[0].number == first.number
    assert audited[0].user_attrs["audited"] == max(first.intermediate_values)
    runs = runs_by_trial("small")
    table = trials_frame(load_study("small", None)).set_index("trial")
    for trial in audited:
        assert trial.state == TrialState.COMPLETE
        assert max(trial.intermediate_values) == 40
        assert runs[trial.number].data.tags["audited"] == str(trial.user_attrs["audited"])
        assert table.audited[trial.number] == trial.user_attrs["audited"]
    assert int(table.audited.notna().sum()) == len(audited)
    assert violations("small") == []


# ---- checkpoints


def trials_with_model() -> set[int]:
    runs = runs_by_trial("small")
    return {number for number, run in runs.items() if "model.safetensors" in artifacts_of(run)}


def test_only_best_trials_keep_checkpoints(launch: Launcher) -> None:
    launch(trials=8, keep_models=2, prune=False)

    best = ranked(trials_of("small"))[:2]
    assert trials_with_model() == {trial.number for trial in best}


def test_lower_keep_models_drops_earlier_checkpoints(launch: Launcher) -> None:
    launch(trials=4, prune=False)
    launch(trials=5, prune=False, keep_models=1)

    assert trials_with_model() == {ranked(trials_of("small"))[0].number}


# ---- seed repeats


def test_best_trials_get_seed_repeats(launch: Launcher, capsys: pytest.CaptureFixture[str]) -> None:
    assert launch(trials=12, repeats=2, json=True, prune=False) == 0

    trials = trials_of("small")
    repeats = [t for t in trials if "repeat_of" in t.user_attrs]
    best = [t.number for t in ranked(trials)[:3]]
    assert sorted(t.user_attrs["repeat_of"] for t in repeats) == sorted(best * 2)
    for trial in repeats:
        original = trials[trial.user_attrs["repeat_of"]]
        assert trial.params == original.params
        assert trial.state == TrialState.COMPLETE
    assert len({t.user_attrs["seed"] for t in trials}) == len(trials)
    # Seed repeats do not count, and their runs are children of the run that they repeat.
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["trials"] == 12
    runs = runs_by_trial("small")
    for trial in repeats:
        parent = runs[trial.user_attrs["repeat_of"]]
        assert runs[trial.number].data.tags["mlflow.parentRunId"] == parent.info.run_id
    assert violations("small") == []


def test_race_continues_at_the_next_launch(launch: Launcher) -> None:
    def equal_configs(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 0.1, 0.1001))

    flags: dict[str, Any] = {"space": equal_configs, "first": None, "trials": 6, "prune": False}
    launch(study="whole", repeats=5, **flags)
    launch(study="parts", repeats=2, **flags)
    launch(study="parts", repeats=5, **flags)

    assert len(trials_of("whole")) > 6 + 6  # more than the first round
    assert outcomes_of("whole") == outcomes_of("parts")


# ---- engines that fail


def inject(
    monkeypatch: pytest.MonkeyPatch,
    fail: Callable[[Slot], Outcome | None],
    engine: type[CpuEngine] = CpuEngine,
) -> None:
    """Let every slot's thread call `fail` before it trains up to the next evaluation.

    An outcome that `fail` returns takes the place of the training.
    """

    class Faulty(engine):  # type: ignore[valid-type, misc]
        def admit(self, config: Config) -> int:
            number = super().admit(config)
            slot = self._slots[number]
            train = slot.train

            def faulty() -> Any:
                return fail(slot) or train()

            slot.train = faulty
            return number

    def make(device: str, corpus: Corpus, capacity: int, *_: object) -> CpuEngine:
        return Faulty(corpus, capacity)

    monkeypatch.setattr(opening, "make_engine", make)


def test_failed_trials_are_trained_again(launch: Launcher, monkeypatch: pytest.MonkeyPatch) -> None:
    failures: list[int] = []

    def fail(slot: Slot) -> Outcome | None:
        if not slot.history or len(failures) == 2:
            return None
        failures.append(slot.config.seed)
        return EngineFailed("injected")

    inject(monkeypatch, fail)
    assert launch(trials=5, prune=False) == 0

    trials = trials_of("small")
    runs = runs_by_trial("small")
    failed = [t for t in trials if t.state == TrialState.FAIL]
    assert len(failed) == 2
    assert sum(t.state == TrialState.COMPLETE for t in trials) == 5
    for trial in failed:
        run = runs[trial.number]
        assert (run.info.status, run.data.tags["state"]) == ("FAILED", "FAIL")
        assert "injected" in run.data.tags["reason"]
        again = next(t for t in trials if t.user_attrs.get("retry_of") == trial.number)
        assert again.params == trial.params
        assert again.user_attrs["seed"] == trial.user_attrs["seed"]
        assert runs[again.number].data.tags["retry_of"] == str(trial.number)
    assert violations("small") == []


def test_failing_parameters_are_tried_three_times(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    inject(monkeypatch, lambda slot: EngineFailed("injected"))
    assert launch(trials=2) == 0

    trials = trials_of("small")
    assert [t.state for t in trials] == [TrialState.FAIL] * 6
    assert len({tuple(t.params.items()) for t in trials}) == 2
    assert violations("small") == []


def assert_out_of_memory(trial: FrozenTrial, run: Any) -> None:
    assert (trial.state, trial.user_attrs["summary"]["reason"]) == (
        TrialState.PRUNED,
        "out of memory",
    )
    assert trial.constraints and not was_pruned_early(trial)
    assert (run.info.status, run.data.tags["reason"]) == ("KILLED", "out of memory")


def test_trial_out_of_memory_is_not_trained_again(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(slot: Slot) -> Outcome | None:
        if slot.config.n_hidden > 200 and slot.history:
            raise MemoryError("injected")
        return None

    inject(monkeypatch, fail)
    assert launch(trials=12, prune=False) == 0

    trials = trials_of("small")
    too_large = [t for t in trials if t.params["n_hidden"] > 200]
    assert too_large and len(trials) == 12
    runs = runs_by_trial("small")
    for trial in trials:
        if trial in too_large:
            assert_out_of_memory(trial, runs[trial.number])
        else:
            assert trial.state == TrialState.COMPLETE
    assert violations("small") == []


def refuse(monkeypatch: pytest.MonkeyPatch, width: int, error: Exception) -> None:
    """Let the engine refuse models with at least this n_hidden."""

    class Small(CpuEngine):
        def admit(self, config: Config) -> int:
            if config.n_hidden >= width:
                raise error
            return super().admit(config)

    def make(device: str, corpus: Corpus, capacity: int, *_: object) -> CpuEngine:
        return Small(corpus, capacity)

    monkeypatch.setattr(opening, "make_engine", make)


@pytest.mark.parametrize("error", [ModelTooLarge("128 GiB"), MemoryError()], ids=["check", "numpy"])
def test_refused_model_ends_only_its_trial(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    refuse(monkeypatch, 250, error)
    assert launch(trials=8, prune=False) == 0

    trials = trials_of("small")
    refused = [t for t in trials if t.params["n_hidden"] >= 250]
    assert refused and len(trials) == 8
    runs = runs_by_trial("small")
    for trial in trials:
        if trial in refused:
            assert_out_of_memory(trial, runs[trial.number])
        else:
            assert trial.state == TrialState.COMPLETE
    assert violations("small") == []


def test_search_without_a_model_that_fits_gives_up(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    refuse(monkeypatch, 1, MemoryError())
    with pytest.raises(UserError, match="the last 10 models did not fit into memory; lower"):
        launch(trials=100)

    states = [t.state for t in trials_of("small")]
    assert states.count(TrialState.PRUNED) == 10 and TrialState.RUNNING not in states


def test_bug_in_trainer_keeps_finished_trials(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []

    def fail(slot: Slot) -> Outcome | None:
        if slot.config.seed not in seen:
            seen.append(slot.config.seed)
        if len(seen) == 3:
            raise ZeroDivisionError("a bug")
        return None

    inject(monkeypatch, fail)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        launch(trials=6, workers=1, prune=False)

    states = [t.state for t in trials_of("small")]
    assert states.count(TrialState.COMPLETE) == 2
    assert TrialState.RUNNING not in states
    assert violations("small") == []


# ---- trials that another launch took over


def test_trial_taken_over_is_left_to_the_other_launch(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    def take_over(slot: Slot) -> None:
        """Act as a launch on another machine, which finds the first trial's launch dead."""
        study = load_study("small", None)
        first = study.get_trials(deepcopy=False)[0]
        if slot.history and first.state == TrialState.RUNNING:
            study._storage.set_trial_user_attr(first._trial_id, "launch", "another")
            study._storage.set_trial_state_values(first._trial_id, TrialState.COMPLETE, [1.5])

    monkeypatch.setattr(launches, "STALE", 0.0)  # as if the heartbeat had been silent
    inject(monkeypatch, take_over)
    assert launch(trials=3, workers=1, prune=False) == 0

    first, *others = trials_of("small")
    assert (first.user_attrs["launch"], first.value) == ("another", 1.5)
    assert [trial.state for trial in others] == [TrialState.COMPLETE] * 2
    # If MLflow had a run of it already, that one is ended as interrupted.
    runs = [run for run in runs_of("small") if run.data.tags.get("trial") == "0"]
    own = [run for run in runs if run.data.tags["launch"] != "another"]
    assert all(run.info.status == "KILLED" for run in own)
