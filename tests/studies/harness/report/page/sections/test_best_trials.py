"""Section 1: best trials and baselines."""

from __future__ import annotations

import re

import optuna

from makemore.config import Config
from makemore.data import Corpus
from makemore.model import MLP
from studies.harness.report.judge.findings import check_model, judge_study
from studies.harness.report.page.sections.best_trials import best_trials
from studies.harness.report.results import read_results
from tests.studies.synthetic import (
    BASE,
    PARAMS,
    SPACE,
    falling,
    make_study,
    make_trial,
    repeats_of,
    results_of,
)


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
    # In words, as on the first screen, so that no reader has to guess the sign.
    assert "<td>0.2000 above</td>" in section


def test_fixed_settings_of_a_copied_study_are_shown() -> None:
    study = make_study(
        [make_trial({"n_hidden": 100}, falling(2.2))], {"n_hidden": SPACE["n_hidden"]}
    )
    study.set_user_attr("base", {**BASE, "lr": 0.3, "block_size": 3, "batch_size": 64})

    section = best_trials(judge_study(read_results(study)), None)

    fixed = re.findall(r"Fixed in all trials: ([^<]+)\.</p>", section)
    assert len(fixed) == 1
    for setting in ("lr 0.3", "block_size 3", "n_embd 10", "batch_size 64", "optimizer sgd"):
        assert setting in fixed[0].split(", ")
    assert "n_hidden" not in fixed[0]


def test_gap_is_of_the_exact_train_loss(corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16, init="kaiming"), len(corpus.vocab))
    check = check_model(corpus, model)

    section = best_trials(judge_study(results_of(make_trial(PARAMS, falling(2.2)))), check)

    losses = f"train loss {check.train_loss:.4f} and dev loss {check.dev_loss:.4f}"
    assert f"{losses}, each exact over its split; dev − train is {check.gap:.4f}." in section
    # A mean over minibatches next to the dev loss would look like a gap.
    assert "minibatch" not in section


def test_without_repeats_the_best_five_are_shown() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)]

    section = best_trials(judge_study(results_of(*trials)), None)

    table = section[: section.index("Fixed in all trials")]
    assert "<h3>Best 5 trials</h3>" in table and table.count("<tr") == 1 + 5
    # The best one is highlighted.
    assert '<tr class="here"><td>0</td><td>2.1000</td>' in table


def test_winner_comes_first_with_its_mean() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(8)]
    trials.append(make_trial(PARAMS, falling(2.4), origin="the lecture's configuration"))
    repeats = [*repeats_of(0, 2.30, 2.31), *repeats_of(6, 2.16, 2.17)]

    section = best_trials(judge_study(results_of(*trials, *repeats)), None)

    table = section[: section.index("Fixed in all trials")]
    assert re.findall(r"<tr[^>]*><td>(\d+)</td>", table) == ["6", "0", "1", "2", "3"]
    assert '<tr class="here"><td>6</td><td>2.1600</td><td>2.1650 ±' in table
    # The baselines are compared with the mean.
    assert "winner of this study, trial 6</td><td>2.1650</td>" in section
    assert "The winner&#x27;s dev loss is the mean of its seed repeats." in section


def test_no_baseline_makes_no_table() -> None:
    section = best_trials(judge_study(results_of(make_trial(PARAMS, falling(2.2)))), None)

    assert "<h3>Best trial</h3>" in section and "Comparison with baselines" not in section


def test_no_loss_is_reported() -> None:
    assert "No trial has a dev loss." in best_trials(judge_study(results_of()), None)
