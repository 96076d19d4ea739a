"""Two launches of one study that start at the same moment."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from studies.harness.store.paths import MLRUNS
from studies.harness.store.trials import ranked
from studies.harness.tracking.connection.connect import connect
from tests.conftest import finish
from tests.studies.conftest import (
    artifacts_of,
    assert_whole,
    runs_by_trial,
    runs_of,
    start_study,
    trials_of,
)


def test_two_launches_share_the_trials(names: Path, storage: str | None) -> None:
    shutil.rmtree(MLRUNS)  # both launches find no store
    flags = ("--trials", 16, "--steps", 6000, "--workers", 1)
    both = [start_study(names, *flags, storage=storage) for _ in range(2)]
    for ran in [finish(process) for process in both]:
        assert ran.code == 0, ran.err

    assert_whole("mlp", 16, storage)
    assert len({run.data.tags["launch"] for run in runs_of("mlp")}) == 2
    experiments = connect(None).search_experiments()
    assert [experiment.name for experiment in experiments].count("mlp") == 1


@pytest.mark.slow
def test_launches_together_keep_only_the_best_checkpoints(names: Path) -> None:
    flags = ("--trials", 24, "--steps", 600, "--workers", 2, "--no-prune", "--keep-models", 3)
    launches = [start_study(names, *flags) for _ in range(3)]
    for ran in [finish(process) for process in launches]:
        assert ran.code == 0, ran.err

    best = [trial.number for trial in ranked(trials_of("mlp"))[:3]]
    kept = [
        n for n, run in runs_by_trial("mlp").items() if "model.safetensors" in artifacts_of(run)
    ]
    assert sorted(kept) == sorted(best)
    assert len(list((MLRUNS / "artifacts").rglob("model.safetensors"))) == 3
