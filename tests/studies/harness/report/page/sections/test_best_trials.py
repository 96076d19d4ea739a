"""Section 1: best trials and baselines."""

from __future__ import annotations

import re

import optuna

from makemore.data import Corpus
from studies.harness.report.judge.findings import check_model, judge_study
from studies.harness.report.page.sections.best_trials import MAX_TIED, best_trials
from studies.harness.report.results import read_results
from tests.studies.synthetic import PARAMS, falling, make_trial, repeats_of, results_of


def test_baselines_are_sorted_with_the_best_among_them(
    rich_study: optuna.Study, corpus: Corpus
) -> None:
    findings = judge_study(read_results(rich_study))

    section = best_trials(findings, check_model(corpus, None))

    baselines = section[section.index("Comparison with baselines") :]
    names = re.findall(r'<td class="text">([^<]+)</td>', baselines)
    losses = [float(loss) for loss in re.findall(r"</td><td>([\d.]+)</td><td>[+−]?", baselines)]
    assert names[0] == "uniform guess, ln V"
    assert losses == sorted(losses, reverse=True)
    assert any(name.startswith("best of this study") for name in names)
    assert any(name.startswith("lecture, ") for name in names)


def test_enqueued_trial_is_a_baseline() -> None:
    trials = [
        make_trial(PARAMS, falling(2.4), origin="the lecture's configuration"),
        make_trial(PARAMS, falling(2.2)),
    ]

    section = best_trials(judge_study(results_of(*trials)), None)

    assert "here, trial 0: the lecture&#x27;s configuration</td><td>2.4000</td>" in section
    assert "<td>+0.2000</td>" in section


def test_without_repeats_the_best_five_are_shown() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)]

    section = best_trials(judge_study(results_of(*trials)), None)

    table = section[: section.index("Comparison with baselines")]
    assert "<h3>Best 5 trials</h3>" in table and table.count("<tr") == 1 + 5
    # The best one is highlighted.
    assert '<tr class="here"><td>0</td><td>2.1000</td>' in table


def test_tied_trials_are_shown_smallest_first() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.0001 * i)) for i in range(MAX_TIED + 3)]
    summary = trials[3].user_attrs["summary"]
    trials[3].set_user_attr("summary", {**summary, "metrics": {"seconds": 1.0, "n_params": 10}})

    section = best_trials(judge_study(results_of(*trials, *repeats_of(0, 2.10, 2.12))), None)

    table = section[: section.index("Comparison with baselines")]
    assert "<h3>Best and tied trials</h3>" in table
    assert table.count("<tr") == 1 + MAX_TIED and "And 3 more." in table
    assert re.findall(r"<tr[^>]*><td>(\d+)</td>", table)[0] == "3"


def test_no_loss_is_reported() -> None:
    assert "No trial has a dev loss." in best_trials(judge_study(results_of()), None)
