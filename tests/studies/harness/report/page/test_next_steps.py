"""Next steps and their commands."""

from __future__ import annotations

import ast
from dataclasses import replace

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.next_steps import LONGER, Step, next_steps
from tests.studies.synthetic import (
    PARAMS,
    falling,
    make_trial,
    repeats_of,
    results_of,
)

CONTEXT = {"script": "studies/mlp.py"}


def find(steps: list[Step], words: str) -> Step:
    """Return the only step whose sentence has these words."""
    (step,) = [step for step in steps if words in step.sentence]
    return step


def test_too_few_trials_ask_for_more() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))

    step = next_steps(findings, CONTEXT)[0]

    assert step.sentence == "Run more trials: 1 are too few for a verdict."
    assert step.command.endswith("--study made-up --trials 32")


def test_diverged_study_lowers_lr() -> None:
    trials = [make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 9")] * 12

    (step,) = next_steps(judge_study(results_of(*trials)), {})

    assert "all diverged" in step.sentence and "Lower the range of lr" in step.sentence
    assert step.command == ""


def test_unknown_noise_asks_for_repeats() -> None:
    findings = judge_study(results_of(*[make_trial(PARAMS, falling(2.2))] * 12))

    step = find(next_steps(findings, CONTEXT), "Confirm the winner")

    assert step.command.endswith("--study made-up --trials 12 --repeats 5")


def test_pruned_best_trial_is_finished() -> None:
    trials = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]
    trials.append(make_trial(PARAMS, [2.3, 2.1], state="PRUNED"))

    step = find(next_steps(judge_study(results_of(*trials)), CONTEXT), "Finish the best trial")

    assert "pruned at step 200 of 1,000" in step.sentence
    assert step.command.endswith("--study made-up --trials 13 --finish-best")


def test_narrow_ranges_are_widened_in_a_new_study() -> None:
    middle = {"lr": 0.03, "block_size": 4, "n_hidden": 150, "batch_size": 64}
    at_edge = {**middle, "block_size": 8, "n_hidden": 300}
    trials = [make_trial(at_edge, falling(2.1 + 0.01 * i)) for i in range(5)]
    trials += [make_trial(middle, falling(2.3 + 0.01 * i)) for i in range(10)]

    step = find(next_steps(judge_study(results_of(*trials)), CONTEXT), "Widen")

    assert step.sentence == "Widen the ranges of block_size and n_hidden in a new study."
    assert "widen block_size beyond 8" in step.reason
    assert "widen n_hidden beyond 300" in step.reason
    assert step.command.endswith(
        "--study made-up-wide --trials 15 --range block_size=2:16 --range n_hidden=50:600"
    )


def test_new_study_gets_a_free_name() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.01 * i)) for i in range(15)]
    context = {**CONTEXT, "new_names": {LONGER: "made-up-longer-2"}}

    step = find(next_steps(judge_study(results_of(*trials)), context), "Train longer")

    assert "--study made-up-longer-2 " in step.command


def test_interrupted_repeats_are_continued_first() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.001 * i)) for i in range(12)]
    sentence = "1 seed repeat is left, and the winner may change."
    results = replace(results_of(*trials, *repeats_of(0, 2.1, 2.2)), open_repeats=sentence)

    step = next_steps(judge_study(results), CONTEXT)[0]

    assert step.command.endswith("--study made-up --trials 12")
    assert step.reason == sentence


def test_wider_ranges_replace_earlier_ones() -> None:
    at_edge = {"lr": 0.03, "block_size": 8, "n_hidden": 150, "batch_size": 64}
    middle = {**at_edge, "block_size": 4}
    trials = [make_trial(at_edge, falling(2.1 + 0.01 * i)) for i in range(5)]
    trials += [make_trial(middle, falling(2.3 + 0.01 * i)) for i in range(10)]
    flags = ["--steps", "1000", "--range", "block_size=2:8", "--range", "n_hidden=50:300"]

    steps = next_steps(judge_study(results_of(*trials)), {**CONTEXT, "flags": flags})

    assert find(steps, "Widen").command.endswith(
        "--study made-up-wide --steps 1000 --range n_hidden=50:300 --trials 15 "
        "--range block_size=2:16"
    )
    # Other new studies keep the ranges.
    longer = find(steps, "Train longer").command
    assert "--range block_size=2:8 --range n_hidden=50:300 --trials 15 --steps 2000" in longer


def test_longer_training_replaces_the_steps_flag() -> None:
    findings = judge_study(results_of(*[make_trial(PARAMS, falling(2.2))] * 12))
    flags = ["--steps", "1000", "--names", "w.txt"]

    step = find(next_steps(findings, {**CONTEXT, "flags": flags}), "Train longer: 2,000 steps.")

    assert step.command.endswith("--study made-up-longer --names w.txt --trials 12 --steps 2000")
    assert step.reason == findings.budget.sentence


def test_overtrained_study_is_shortened() -> None:
    losses = [2.2, *[2.5] * 9]

    findings = judge_study(results_of(*[make_trial(PARAMS, losses)] * 12))

    step = find(next_steps(findings, CONTEXT), "Train shorter: 250 steps.")
    assert step.command.endswith("--study made-up-shorter --trials 12 --steps 250")


def test_harmful_pruner_is_switched_off() -> None:
    trials = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]
    trials += [make_trial(PARAMS, falling(2.0), audited=200)] * 4
    trials += [make_trial(PARAMS, falling(2.0)[:2], state="PRUNED")] * 6

    step = find(next_steps(judge_study(results_of(*trials)), CONTEXT), "Search without pruning.")

    assert step.command.endswith("--study made-up-unpruned --trials 22 --no-prune")


def test_unknown_pruner_is_measured() -> None:
    trials = [make_trial(PARAMS, falling(2.2 + 0.01 * i)) for i in range(12)]
    trials += [make_trial(PARAMS, falling(3.0)[:2], state="PRUNED")] * 13
    context = {**CONTEXT, "flags": ["--audit-pruning", "0.1"]}

    step = find(next_steps(judge_study(results_of(*trials)), context), "Measure the pruner")

    assert step.command.endswith("--study made-up --trials 50 --audit-pruning 0.5")
    assert "none of the 13 that it stopped was audited" in step.reason


def test_winner_is_exported_and_retrained() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.001 * i)) for i in range(12)]
    results = results_of(*trials, *repeats_of(0, 2.3, 2.31), *repeats_of(3, 2.10, 2.11))

    steps = next_steps(judge_study(results), {"store_flags": ["--storage", "s.journal"]})

    # The default of export.py is the winner, so no trial is named.
    step = find(steps, "Export the winner")
    assert step.command.endswith("export.py made-up --storage s.journal")
    assert "retrain.py experiments/configs/made-up.toml " in steps[-1].command


def test_tied_configs_get_more_seeds() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.001 * i)) for i in range(12)]
    results = results_of(*trials, *repeats_of(0, 2.10, 2.13), *repeats_of(3, 2.10, 2.11))

    step = find(next_steps(judge_study(results), CONTEXT), "Compare the 2 tied configs")

    assert step.command.endswith("--study made-up --trials 12 --repeats 8")


def test_retraining_gets_its_flags() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))

    steps = next_steps(findings, {"retrain_flags": ["--names", "w.txt"]})

    command = steps[-1].command
    assert command.endswith("experiments/configs/made-up.toml --seeds 5 --names w.txt")


def test_without_a_script_the_search_continues_in_python() -> None:
    findings = judge_study(results_of(*[make_trial(PARAMS, falling(2.2))] * 12))
    context = {"flags": ["--steps", "1000", "--storage", "postgresql://me:secret@host/db"]}

    search = [step for step in next_steps(findings, context) if "experiments/" not in step.command]

    assert search
    for step in search:
        call = ast.parse(step.command, mode="eval").body
        assert isinstance(call, ast.Call) and ast.unparse(call.func) == "search"
        assert {keyword.arg for keyword in call.keywords} >= {"name", "trials", "steps"}
        assert "secret" not in step.command
