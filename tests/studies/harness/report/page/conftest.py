"""Fixtures of the page's tests."""

from __future__ import annotations

from collections.abc import Iterator

import optuna
import pytest

from studies.harness.report.figures.style import look
from studies.harness.report.results import read_results
from tests.studies.synthetic import make_study, random_trials, repeats_of


@pytest.fixture
def style() -> Iterator[None]:
    """The style within which sections draw their figures."""
    with look():
        yield


@pytest.fixture
def rich_study() -> optuna.Study:
    """Sixty trials whose loss falls with block_size, and three repeats of each of the best two."""
    study = make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"]))
    for trial in read_results(study).trials.trial[:2]:
        study.add_trials(repeats_of(int(trial), 2.07, 2.08, 2.09))
    return study
