"""Section 1: best trials and baselines."""

from __future__ import annotations

import re

import optuna

from makemore.data import Corpus
from studies.harness.report.judge.findings import check_model, judge_study
from studies.harness.report.page.sections.best_trials import best_trials
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
    assert any(name.startswith("winner of this study") for name in names)
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


def test_winner_comes_first_with_its_mean() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)]
    repeats = [*repeats_of(0, 2.30, 2.31), *repeats_of(6, 2.16, 2.17)]

    section = best_trials(judge_study(results_of(*trials, *repeats)), None)

    table = section[: section.index("Comparison with baselines")]
    assert re.findall(r"<tr[^>]*><td>(\d+)</td>", table) == ["6", "0", "1", "2", "3"]
    assert '<tr class="here"><td>6</td><td>2.1600</td><td>2.1650 ±' in table
    # The baselines are compared with the mean.
    assert "winner of this study, trial 6</td><td>2.1650</td>" in section


def test_no_loss_is_reported() -> None:
    assert "No trial has a dev loss." in best_trials(judge_study(results_of()), None)
