"""Section 4: noise between seeds."""

from __future__ import annotations

import re

import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.sections.noise import noise
from tests.studies.synthetic import PARAMS, falling, make_trial, repeats_of, results_of

pytestmark = pytest.mark.usefixtures("style")


def test_noise_has_sd_and_smallest_significant_difference() -> None:
    findings = judge_study(
        results_of(make_trial(PARAMS, falling(2.1)), *repeats_of(0, 2.14, 2.15, 2.16))
    )
    assert findings.noise is not None

    section = noise(findings)

    assert "a standard deviation of 0.0100 (2 degrees of freedom)" in section
    assert f"at least {findings.noise.min_difference:.4f}." in section
    # The 97.5% quantile of Student's t with 2 degrees of freedom is 4.3027.
    margin = 4.3027 * 0.01 * (1 + 1 / 3) ** 0.5
    difference = f"the means of the repeats are 0.0500 ± {margin:.4f} (95%) above the trials"
    assert difference in section and "The likely reason is selection bias" in section
    assert "<td>0</td><td>2.1000</td><td>3</td><td>2.1500</td>" in section


def test_lower_means_are_no_selection_bias() -> None:
    findings = judge_study(
        results_of(make_trial(PARAMS, falling(2.2)), *repeats_of(0, 2.14, 2.15, 2.16))
    )

    section = noise(findings)
    assert "0.0500 ± 0.0497 (95%) below" in section and "no selection bias can be seen" in section


def test_lowest_mean_is_not_compared_with_itself() -> None:
    trials = [make_trial(PARAMS, falling(2.1)), make_trial(PARAMS, falling(2.3))]
    repeats = [*repeats_of(0, 2.14, 2.15, 2.16), *repeats_of(1, 2.34, 2.35, 2.36)]

    section = noise(judge_study(results_of(*trials, *repeats)))

    assert "<td>0.0100</td><td></td><td></td><td></td></tr>" in section
    assert re.search(r"<td>0.2000</td><td>0\.\d{4}</td><td>yes</td></tr>", section)


def test_unknown_noise_is_reported() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))

    assert "The noise is unknown: no config has two seed repeats." in noise(findings)
