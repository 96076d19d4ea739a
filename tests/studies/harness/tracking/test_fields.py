"""How a trial's record becomes the name, params and metrics of an MLflow run."""

from __future__ import annotations

import pytest

from studies.harness.tracking.fields import (
    STATUS,
    final_metrics,
    point_metrics,
    run_name,
    run_params,
)
from tests.studies.harness.tracking.records import START, make_record


@pytest.mark.parametrize(
    ("state", "losses", "name"),
    [
        ("COMPLETE", (2.4, 2.2), "2.2000 · t007"),
        # The best evaluation counts, also if it is not the last.
        ("PRUNED", (2.3, 2.4), "2.3000 · t007"),
        ("RUNNING", (2.3,), "t007"),
        ("FAIL", (2.3,), "t007"),
        ("PRUNED", (), "t007"),
    ],
)
def test_name_begins_with_the_score_of_a_measured_trial(
    state: str, losses: tuple[float, ...], name: str
) -> None:
    record = make_record(losses, state=state)

    assert run_name(record) == name
    # MLflow cuts longer names.
    assert len(name) <= 18


def test_params_are_the_config_and_log10_lr() -> None:
    record = make_record()

    assert run_params(record) == {**record.config.model_dump(), "log10_lr": -1.0}


def test_dev_loss_is_the_first_metric_of_an_evaluation() -> None:
    point = make_record((2.4,)).points[0]

    rows = point_metrics(point, START)

    assert rows[0] == ("dev_loss", 2.4, 100, START)
    assert [row[0] for row in rows] == ["dev_loss", "train_loss", "lr"]


def test_best_losses_are_logged_again_after_a_worse_end() -> None:
    rows = final_metrics(make_record((2.2, 2.4)))

    values = {key: value for key, value, _, _ in rows}
    assert values["dev_loss"] == 2.2 and values["best_step"] == 100
    assert values["n_params"] == 1000 and values["gap"] == pytest.approx(0.1)
    # All are at the last step; the losses come after the last evaluation.
    assert {step for _, _, step, _ in rows} == {200}
    assert max(rows, key=lambda row: row[3])[0] in ("dev_loss", "train_loss")


def test_best_losses_are_not_repeated_after_the_best_end() -> None:
    keys = [row[0] for row in final_metrics(make_record((2.4, 2.2)))]

    assert keys == ["n_params", "best_step", "gap"]


def test_trial_without_evaluation_has_its_single_numbers() -> None:
    assert final_metrics(make_record(())) == [("n_params", 1000.0, 0, START + 10)]


def test_every_final_state_has_a_status() -> None:
    assert set(STATUS) == {"COMPLETE", "PRUNED", "INTERRUPTED", "FAIL"}
