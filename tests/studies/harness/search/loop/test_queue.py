"""Which trial comes next: totals, seeds, resumed studies, duplicates, follow-up trials."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from makemore.config import Config
from makemore.data import Corpus
from makemore.engines import EvalPoint
from studies.harness.search.loop import queue
from studies.harness.search.loop.queue import TrialQueue
from studies.harness.search.samplers.tpe import default_sampler
from studies.harness.search.spaces import Space, describe
from studies.harness.store import launches
from studies.harness.store.launches import Launch
from studies.harness.store.study import load_study, open_study
from studies.harness.store.trials import dev_loss
from tests.studies.conftest import Launcher, outcomes_of, trials_of

LR: dict[str, optuna.distributions.BaseDistribution] = {
    "lr": optuna.distributions.FloatDistribution(1e-3, 1.0, log=True)
}


def test_first_trial_is_the_lectures(launch: Launcher) -> None:
    launch(trials=2)
    assert trials_of("small")[0].params == {
        "lr": 0.1,
        "block_size": 3,
        "n_embd": 10,
        "n_hidden": 200,
        "batch_size": 32,
    }


def test_trials_flag_is_a_total(launch: Launcher) -> None:
    launch(trials=3)
    before = outcomes_of("small")

    launch(trials=3)
    assert outcomes_of("small") == before

    launch(trials=5)
    after = outcomes_of("small")
    assert len(after) == 5
    assert after[:3] == before


def test_seed_decides_study_with_one_worker(launch: Launcher) -> None:
    for study, seed in (("a", 0), ("b", 0), ("c", 1)):
        launch(study=study, trials=13, workers=1, seed=seed)

    assert outcomes_of("a") == outcomes_of("b")
    params = {study: [row[1] for row in outcomes_of(study)[1:]] for study in "ac"}
    assert params["a"] != params["c"]


def test_resumed_study_equals_uninterrupted_one(launch: Launcher) -> None:
    launch(study="whole", trials=14, workers=1)
    launch(study="parts", trials=12, workers=1)
    launch(study="parts", trials=14, workers=1)

    assert outcomes_of("whole") == outcomes_of("parts")


def test_resumed_study_audits_the_same_trials(launch: Launcher) -> None:
    flags = {"workers": 1, "audit_pruning": 0.5}
    launch(study="whole", trials=16, **flags)
    launch(study="parts", trials=9, **flags)
    launch(study="parts", trials=16, **flags)

    audited = [
        [(t.number, t.user_attrs.get("audited")) for t in trials_of(study)]
        for study in ("whole", "parts")
    ]
    assert audited[0] == audited[1]
    assert any(step is not None for _, step in audited[0])
    assert outcomes_of("whole") == outcomes_of("parts")


def test_workers_do_not_change_trials(launch: Launcher) -> None:
    launch(study="one", trials=6, workers=1, prune=False)
    launch(study="two", trials=6, workers=2, prune=False)

    # The first ten proposals are random, and a trial's seed comes from its number.
    assert outcomes_of("one") == outcomes_of("two")


def test_study_of_three_values_ends_early(
    launch: Launcher, capsys: pytest.CaptureFixture[str]
) -> None:
    def three(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(n_hidden=trial.suggest_int("n_hidden", 10, 30, step=10))

    assert launch(space=three, first=None, trials=5, repeats=2, prune=False) == 0

    assert "The search space holds nothing new" in capsys.readouterr().err
    complete = [t for t in trials_of("small") if t.state == TrialState.COMPLETE]
    # Each value once, and its two seed repeats.
    assert sorted(t.params["n_hidden"] for t in complete) == [10] * 3 + [20] * 3 + [30] * 3


# ---- trials whose config cannot train


class Counted(TrialQueue):
    """A queue whose trials are told without training."""

    def end(self, lr: float, state: TrialState, reason: str, *losses: float) -> None:
        """End a trial after one dev loss per 100 steps."""
        self.study.enqueue_trial({"lr": lr})
        active = self.next()
        assert active is not None
        for i, loss in enumerate(losses):
            active.trial.report(loss, 100 * (i + 1))
            active.record.points.append(EvalPoint(100 * (i + 1), loss, loss, lr))
            active.record.times.append(0.0)
        active.record.state, active.record.reason = state.name, reason
        self.tell(active, state)


def open_queue(space: Space, corpus: Corpus) -> Counted:
    """Return the queue of a new study."""
    study = open_study(
        "one",
        None,
        space=describe(space, Config()),
        base=Config(),
        corpus=corpus,
        seed=0,
        pruner=optuna.pruners.NopPruner(),
        launched_with={},
        first=None,
    )
    return Counted(study, space, Config(), Launch.begin(study), 100, 0, default_sampler)


@pytest.mark.parametrize("reason", ["diverged at step 950", "out of memory"])
@pytest.mark.parametrize("n_losses", [0, 9])
def test_proposals_move_away_from_configs_that_cannot_train(
    workdir: Path, small_corpus: Corpus, reason: str, n_losses: int
) -> None:
    def space(trial: optuna.Trial, base: Config) -> Config:
        return base.replace(lr=trial.suggest_float("lr", 1e-3, 1e3, log=True))

    queue = open_queue(space, small_corpus)
    # The pruner stopped every trial with a low lr at once. Those with a high lr trained for longer,
    # with lower losses, before they ended.
    for i in range(12):
        queue.end(0.01 * 1.1**i, TrialState.PRUNED, "pruned", 2.9)
        queue.end(100 * 1.1**i, TrialState.PRUNED, reason, *[2.5] * n_losses)

    proposed = [queue.next() for _ in range(12)]
    queue.launch.end()

    # Random proposals would have a low lr in one case of two.
    assert sum(active is not None and active.config.lr < 1 for active in proposed) >= 9


def test_pruned_trial_has_its_lowest_loss(workdir: Path, small_corpus: Corpus) -> None:
    queue = open_queue(one_lr, small_corpus)

    queue.end(0.1, TrialState.PRUNED, "pruned", 2.5, 2.4, 2.6)
    queue.end(0.2, TrialState.PRUNED, "out of memory")
    queue.launch.end()

    # As MLflow has it, and the checkpoint; 2.6 was the last one.
    pruned, refused = queue.study.get_trials()
    assert (pruned.state, pruned.value, dev_loss(pruned)) == (TrialState.PRUNED, 2.4, 2.4)
    assert pruned.intermediate_values == {100: 2.5, 200: 2.4, 300: 2.6}
    assert (refused.state, refused.value) == (TrialState.PRUNED, None)


def one_lr(trial: optuna.Trial, base: Config) -> Config:
    """A space of one parameter."""
    return base.replace(lr=trial.suggest_float("lr", 1e-3, 1.0, log=True))


# ---- launches on other hosts


def run_elsewhere(study: optuna.Study) -> dict[str, Any]:
    """Let a launch on another host take the next trial; returns its heartbeat."""
    trial = study.ask()
    trial.set_user_attr("launch", "far")
    lease = {"host": "far away", "lock": "/absent", "seen": time.time()}
    study.set_user_attr("launch:far", lease)
    return lease


def test_last_launch_trains_the_trials_of_a_dead_host(
    launch: Launcher, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    launch(trials=2, prune=False)
    run_elsewhere(load_study("small", None))
    monkeypatch.setattr(launches, "STALE", 2.0)
    monkeypatch.setattr(queue, "ORPHAN_CHECK", 0.1)

    assert launch(trials=3, prune=False) == 0

    assert [trial.state for trial in trials_of("small")] == [TrialState.COMPLETE] * 3
    assert "Waiting for a sign of launch far on another host." in caplog.messages


def test_launch_ends_while_another_host_trains(launch: Launcher) -> None:
    launch(trials=2, prune=False)
    study = load_study("small", None)
    lease = run_elsewhere(study)

    def beat() -> None:
        lease["seen"] += 1
        study.set_user_attr("launch:far", lease)

    beats = threading.Timer(2.0, beat)
    beats.start()
    assert launch(trials=3, prune=False) == 0

    assert trials_of("small")[2].state == TrialState.RUNNING
