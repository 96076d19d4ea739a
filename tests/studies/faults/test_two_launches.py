"""Two launches of one study that start at the same moment."""

from __future__ import annotations

import shutil
from pathlib import Path

from studies.harness.store.paths import MLRUNS
from studies.harness.tracking.client import connect
from tests.conftest import finish
from tests.studies.conftest import assert_whole, runs_of, start_study


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
