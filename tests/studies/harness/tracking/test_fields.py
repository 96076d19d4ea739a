"""How a trial's record becomes the name, params and metrics of an MLflow run."""

from __future__ import annotations

import pytest

from studies.harness.tracking.fields import (
    STATUS,
    curve_metrics,
    final_metrics,
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


def test_evaluation_has_four_metrics_and_dev_loss_is_the_first() -> None:
    rows = curve_metrics(make_record((2.4,)))

    assert rows[0] == ("dev_loss", 2.4, 100, START)
    # The rate of a step is not the parameter lr, and a mean over minibatches is not the train loss.
    assert [row[0] for row in rows[1:]] == ["current_dev_loss", "minibatch_loss", "current_lr"]


@pytest.mark.parametrize("losses", [(2.4, 2.2), (2.2, 2.4), (2.5, 2.2, 2.4, 2.3)])
def test_latest_dev_loss_is_that_of_the_trial(losses: tuple[float, ...]) -> None:
    record = make_record(losses)

    rows = [row for row in curve_metrics(record) + final_metrics(record) if row[0] == "dev_loss"]

    assert record.best is not None
    assert rows[-1][1] == record.best.dev_loss == min(losses)
    # One point a step: the last step too.
    assert [row[2] for row in rows] == [point.step for point in record.points]


def test_metrics_sent_in_parts_are_those_sent_at_once() -> None:
    record = make_record((2.5, 2.2, 2.4))

    parts = [*curve_metrics(record, 0, 2), *curve_metrics(record, 2, 3)]

    assert parts == curve_metrics(record)


def test_final_metrics_are_at_the_last_step() -> None:
    rows = final_metrics(make_record((2.2, 2.4)))

    assert rows == [("n_params", 1000.0, 200, START + 10), ("best_step", 100.0, 200, START + 10)]


def test_trial_without_evaluation_has_its_single_numbers() -> None:
    assert final_metrics(make_record(())) == [("n_params", 1000.0, 0, START + 10)]


def test_every_final_state_has_a_status() -> None:
    assert set(STATUS) == {"COMPLETE", "PRUNED", "INTERRUPTED", "FAIL"}
