"""Section 3: parameters."""

from __future__ import annotations

import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.sections.parameters import parameters
from studies.harness.report.results import read_results
from tests.studies.synthetic import SPACE, falling, make_study, make_trial, random_trials

pytestmark = pytest.mark.usefixtures("style")


def section_of(*trials: object, space: dict | None = None) -> str:
    study = make_study(trials, space)  # type: ignore[arg-type]
    return parameters(judge_study(read_results(study)))


def test_each_parameter_has_a_chart_with_its_verdict() -> None:
    section = section_of(*random_trials(60, lambda p: 2 + 0.5 / p["block_size"]))

    for name in SPACE:
        assert f'aria-label="Dev loss by {name}"' in section
    assert '<span class="tag act">widen</span>' in section
    assert "widen block_size beyond 8" in section
    assert 'aria-label="Parallel coordinates"' in section


def test_best_lr_is_shown_by_each_searched_size() -> None:
    section = section_of(*random_trials(12, lambda p: 2 + p["lr"]))

    assert 'aria-label="Best lr by batch_size"' in section
    assert 'aria-label="Best lr by n_hidden"' in section


def test_without_lr_there_is_no_best_lr() -> None:
    space = {name: SPACE[name] for name in ("batch_size", "n_hidden")}

    section = section_of(*random_trials(12, lambda p: 2.0, space), space=space)

    assert "Best lr by" not in section


def test_fixed_parameters_are_reported() -> None:
    assert "No parameter was searched." in section_of(make_trial({}, falling(2.2)), space={})
