"""Saved views, links and the note as text; tests/studies/test_browser.py opens them."""

from __future__ import annotations

import json

import pytest

from studies.harness.report.judge.findings import judge_study
from studies.harness.report.page.note import write_note
from studies.harness.report.results import read_results
from studies.harness.tracking.views import CHARTS, TRIALS, experiment_tags, view_link
from tests.studies.synthetic import falling, make_study, make_trial, random_trials

PARAMS = ["lr", "block_size", "batch_size"]


def state_of(view: str, params: list[str] = PARAMS) -> dict[str, object]:
    saved = json.loads(experiment_tags(params, 1790000000000)[f"mlflow.sharedViewState.{view}"])
    assert saved["createdAt"] == saved["updatedAt"] == 1790000000000
    state: dict[str, object] = json.loads(saved["state"])  # JSON within JSON, as MLflow keeps it
    return state


@pytest.mark.parametrize("view", [TRIALS, CHARTS])
def test_views_rank_trials_and_show_their_parameters(view: str) -> None:
    state = state_of(view)

    assert state["orderByKey"] == "metrics.`dev_loss`" and state["orderByAsc"] is True
    columns = state["selectedColumns"]
    assert isinstance(columns, list)
    assert columns[0] == "metrics.`dev_loss`"
    assert {"params.`lr`", "params.`block_size`", "tags.`state`", "tags.`reason`"} <= set(columns)


def test_charts_have_linear_axes_and_sections() -> None:
    state = state_of(CHARTS)

    cards, sections = state["compareRunCharts"], state["compareRunSections"]
    assert isinstance(cards, list) and isinstance(sections, list)
    assert [card["type"] for card in cards] == ["PARALLEL", "LINE", "SCATTER", "CONTOUR"]
    assert cards[0]["selectedParams"] == ["log10_lr", "block_size", "batch_size"]
    assert {card["metricSectionId"] for card in cards} <= {section["uuid"] for section in sections}
    assert len({card["uuid"] for card in cards}) == len(cards)


def test_contour_needs_both_parameters() -> None:
    cards = state_of(CHARTS, ["lr", "n_hidden"])["compareRunCharts"]

    assert isinstance(cards, list) and "CONTOUR" not in {card["type"] for card in cards}


def test_links_name_the_view() -> None:
    base = "http://127.0.0.1:5000/"

    assert view_link(base, "7") == (
        "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
        "&viewStateShareKey=trials"
    )
    assert view_link(base, "7", CHARTS).endswith("&viewStateShareKey=charts&compareRunsMode=CHART")


def test_note_has_score_ranges_verdicts_and_commands() -> None:
    trials = random_trials(60, lambda p: 2 + 0.5 / p["block_size"])
    study = make_study(trials)
    best = read_results(study).trials.iloc[0]
    study.add_trials(
        [
            make_trial(trials[best.trial].params, falling(x), repeat_of=best.trial)
            for x in (2.1, 2.2)
        ]
    )

    note = write_note(
        judge_study(read_results(study)),
        {"script": "studies/mlp.py", "command": "python studies/mlp.py"},
        "7",
    )

    lines = note.splitlines()
    assert lines[0].startswith("## made-up: dev loss 2.1500 ± ")
    assert lines[0].endswith(f"(trial {best.trial})")
    assert lines[2].startswith("- Winner: trial ")
    assert "(#/experiments/7/runs?" in note
    assert "- `lr`: 0.001 to 1.0 (log)" in lines and "- `batch_size`: one of 32/64/128/256" in lines
    assert "widen block_size beyond 8" in note and "Two trials of one seed" in note
    assert "The last quarter of the trials (15, from trial 45 on)" in note
    assert note.count("```") % 2 == 0 and note.endswith("```\npython studies/mlp.py\n```")
    assert len(note) < 5000  # MLflow cuts a tag after 8000


def test_note_of_an_empty_study_says_so() -> None:
    note = write_note(judge_study(read_results(make_study())), {}, "7")

    assert note.startswith("## made-up: no trial was measured") and "nan" not in note
