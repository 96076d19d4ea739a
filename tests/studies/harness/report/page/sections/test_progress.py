"""Section 2: progress of the search."""

from __future__ import annotations

import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.sections.progress import progress
from tests.studies.synthetic import PARAMS, START, falling, make_trial, repeats_of, results_of

pytestmark = pytest.mark.usefixtures("style")
REPEATS = repeats_of(1, 2.10, 2.11, 2.12)


def test_flat_second_half_ends_the_search() -> None:
    trials = [make_trial(PARAMS, falling(2.2 - 0.1 * (i > 0))) for i in range(24)]

    section = progress(judge_study(results_of(*trials, *REPEATS)))

    assert '<span class="tag fine">stop</span>' in section
    assert "<b>Stop the search here.</b>" in section


def test_improving_second_half_continues_the_search() -> None:
    trials = [make_trial(PARAMS, falling(2.2 - 0.1 * (i > 0) - 0.05 * (i > 20))) for i in range(24)]

    section = progress(judge_study(results_of(*trials, *REPEATS)))

    assert '<span class="tag act">continue</span><b>Run 6 more trials' in section
    assert "lowered the best dev loss by 0.0500 nats, 33% of the total gain of 0.1500" in section


def test_best_loss_at_half_of_the_search_is_given() -> None:
    trials = [make_trial(PARAMS, falling(2.4 - 0.1 * i), at=START + 20 * i) for i in range(3)]

    section = progress(judge_study(results_of(*trials)))

    # The second of three trials had trained half of its steps by then.
    assert (
        "The lowest dev loss of a single trial is 2.2000; it was 2.3648 at half of the" in section
    )
    assert "at half of the steps and 2.3648 at half of the seconds." in section
    # A half of the trials is one by their numbers only, see the verdict.
    assert "half of the trials" not in section


def test_order_of_trials_is_stated() -> None:
    section = progress(judge_study(results_of(*[make_trial(PARAMS, falling(2.2))] * 2)))

    assert "On this page, trials are in the order of their numbers." in section
