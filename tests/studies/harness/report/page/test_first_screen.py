"""First screen: best config, its loss with the noise, and what to do next."""

from __future__ import annotations

import optuna

from makemore.data import Corpus
from studies.harness.report.judge.findings import check_model, judge_study
from studies.harness.report.page.first_screen import first_screen
from studies.harness.report.results import read_results
from tests.studies.synthetic import PARAMS, falling, make_trial, repeats_of, results_of

CONTEXT = {"script": "studies/mlp.py", "flags": ["--names", "words.txt"], "data": "words.txt"}


def test_best_loss_noise_and_commands_are_shown(rich_study: optuna.Study) -> None:
    results = read_results(rich_study)

    screen = first_screen(judge_study(results), None, CONTEXT)

    assert f"Its own seed, in the search, has {results.trials.dev_loss[0]:.4f}." in screen
    assert '<div class="score">2.0800<small>± ' in screen
    assert "widen block_size beyond 8" in screen
    assert (
        "studies/mlp.py --study made-up-longer --names words.txt --trials 60 --steps 2000" in screen
    )
    assert "experiments/export.py made-up" in screen and "experiments/retrain.py" in screen
    assert "trials of 1,000 steps (" in screen and "on words.txt." in screen


def test_config_shows_searched_then_fixed_fields() -> None:
    screen = first_screen(judge_study(results_of(make_trial(PARAMS, falling(2.2)))), None, {})

    assert "<span>lr <b>0.1</b></span>" in screen
    assert '<span class="fixed">optimizer <b>sgd</b></span>' in screen
    assert screen.index("batch_size <b>32</b>") < screen.index("optimizer <b>sgd</b>")


def test_unknown_noise_is_reported() -> None:
    screen = first_screen(judge_study(results_of(make_trial(PARAMS, falling(2.2)))), None, {})

    assert "The noise is unknown: no config has two seed repeats yet." in screen


def test_winner_may_be_another_trial() -> None:
    trials = [make_trial(PARAMS, falling(loss)) for loss in (2.1, 2.11)]
    repeats = [*repeats_of(0, 2.2, 2.21), *repeats_of(1, 2.12, 2.13)]

    screen = first_screen(judge_study(results_of(*trials, *repeats)), None, {})

    assert "Dev loss of the winner, trial 1" in screen
    assert '<div class="score">2.1250<small>±' in screen
    assert "Trial 0 has the lowest loss of one seed, 2.1000, but" in screen


def test_stopped_study_says_what_the_last_half_gained() -> None:
    trials = [make_trial(PARAMS, falling(2.2 - 0.1 * (i > 0))) for i in range(24)]

    screen = first_screen(
        judge_study(results_of(*trials, *repeats_of(1, 2.10, 2.11, 2.12))), None, {}
    )

    assert "Stop the search here." in screen
    assert "The last half of the trials did not lower the best dev loss." in screen


def test_best_loss_is_compared_with_counts(small_corpus: Corpus) -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(1.0))))
    check = check_model(small_corpus, None)

    screen = first_screen(findings, check, {})

    assert f"{check.rungs[1].dev_loss - 1:.4f} below bigram counts" in screen
    assert f"{check.rungs[-1].dev_loss - 1:.4f} below Kneser-Ney counts" in screen


def test_study_without_losses_has_no_answer() -> None:
    screen = first_screen(judge_study(results_of()), None, {})

    assert "No trial has a dev loss yet." in screen and "none has ended" in screen
