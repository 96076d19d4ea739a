"""Section 5: steps and pruning."""

from __future__ import annotations

import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.sections.steps import steps
from tests.studies.synthetic import PARAMS, falling, make_trial, results_of

pytestmark = pytest.mark.usefixtures("style")
COMPLETE = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]


def test_verdicts_and_rank_correlations_are_shown() -> None:
    audited = [make_trial(PARAMS, falling(2.6), audited=200)] * 6
    pruned = make_trial(PARAMS, [3.5, 3.4], state="PRUNED")
    findings = judge_study(results_of(*COMPLETE, *audited, pruned))

    section = steps(findings)

    assert '<span class="tag act">lengthen</span>' in section
    assert '<span class="tag fine">pruning: fair</span>' in section
    assert "1.00 at step 200 and 1.00 at step 500, over 18 complete trials" in section
    assert "It says nothing about the 1 pruned trial, which is missing." in section
    assert section.count("<figure>") == 3


def test_harmful_pruner_has_the_colour_of_an_action() -> None:
    audited = [make_trial(PARAMS, falling(2.0), audited=200)] * 4
    pruned = [make_trial(PARAMS, falling(2.0)[:2], state="PRUNED")] * 6

    section = steps(judge_study(results_of(*COMPLETE, *audited, *pruned)))

    assert '<span class="tag act">pruning: harmful</span>' in section


def test_too_few_trials_have_no_rank_correlation() -> None:
    section = steps(judge_study(results_of(COMPLETE[0])))

    assert "Too few complete trials to tell whether early losses predict" in section
    assert '<span class="tag unknown">unknown</span>' in section
