"""Markdown note on a study's parent run."""

from __future__ import annotations

import dataclasses

import optuna

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.note import verdicts, write_note
from studies.harness.report.results import read_results
from tests.studies.synthetic import PARAMS, falling, make_study, make_trial, results_of


def test_note_has_config_ranges_verdicts_and_steps(rich_study: optuna.Study) -> None:
    findings = judge_study(read_results(rich_study))

    note = write_note(findings, {"script": "studies/mlp.py", "command": "python x.py"}, "7")

    headings = [line for line in note.splitlines() if line.startswith("#")]
    assert headings[1:] == ["### Searched", "### Verdicts", "### Next", "### Made by"]
    assert headings[0].startswith("## made-up: dev loss ") and "2.0800 ± " in headings[0]
    assert "**Best config**: `lr` " in note
    assert "- Winner: trial " in note and "- Tied with it (95%): trial" in note
    assert "- `lr`: 0.001 to 1.0 (log)" in note
    assert note.count("```") % 2 == 0 and note.endswith("```\npython x.py\n```")
    assert len(note) < 8000  # MLflow cuts a longer tag


def test_verdicts_include_noise_and_selection_bias(rich_study: optuna.Study) -> None:
    findings = judge_study(read_results(rich_study))
    assert findings.noise is not None

    first, second, *rest = verdicts(findings)

    assert f"only from {findings.noise.min_difference:.4f} on (sd between seeds 0.0100)" in first
    assert second.startswith("On average, the means of the repeats are 0.0151 ± 0.0227 (95%) above")
    assert findings.budget.sentence in rest and findings.pruning.sentence in rest


def test_unknown_noise_and_unknown_ranges() -> None:
    found = verdicts(judge_study(results_of(make_trial(PARAMS, falling(2.2)))))

    assert found[0] == "The noise between seeds is unknown: no config has two seed repeats."
    assert not any("The range of" in sentence for sentence in found)


def test_note_has_fixed_settings_and_the_exact_gap() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))

    known = write_note(dataclasses.replace(findings, gap=0.0523), {}, "7")

    assert "Fixed in all trials: `max_steps` 1000, `eval_interval` 100, `n_embd` 10" in known
    assert "; dev − train 0.0523." in known
    # Without the model it is not estimated from the minibatch losses.
    assert "dev − train" not in write_note(findings, {}, "7")


def test_steps_have_the_commands_of_the_studys_own_script() -> None:
    trials = [make_trial(PARAMS, falling(2.2)) for _ in range(3)]
    study = make_study(trials)
    study.set_user_attr("script", "studies/mine.py")

    note = write_note(judge_study(read_results(study)), {}, "7")

    # The launch does not pass the script to the note; the study has it.
    assert "- Run more trials: 3 are too few for a verdict.\n\n```\n" in note
    assert "studies/mine.py --study made-up --trials 32\n```" in note


def test_empty_study_has_a_note() -> None:
    note = write_note(judge_study(results_of()), {}, "7")

    assert note.startswith("## made-up: no trial was measured")
    assert "0 trials of 1 step (none has ended)" in note and "nan" not in note


def test_long_note_is_shortened_at_whole_parts() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))
    command = "python x.py " + "--range lr=1e-3:1 " * 600

    note = write_note(findings, {"script": "studies/mlp.py", "command": command}, "7")

    assert len(note) < 8000 and note.startswith("## made-up: dev loss 2.2000")
    assert "### Next" in note and "### Made by" not in note
    assert note.endswith("\n\nThis note is shortened; the report has everything.")


def test_note_of_a_large_study_is_not_shortened(large_study: optuna.Study) -> None:
    note = write_note(judge_study(read_results(large_study)), {"script": "studies/mlp.py"}, "7")

    assert "2,300 trials of 1,000 steps" in note
    assert len(note) < 8000 and "shortened" not in note
