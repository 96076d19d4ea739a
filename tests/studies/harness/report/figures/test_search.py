"""The pictures show what the trials are, and stand for every kind of study."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib.axes import Axes
from optuna.distributions import BaseDistribution, CategoricalDistribution
from PIL import Image

from studies.harness.report.figures.search import (
    draw_history,
    draw_importances,
    draw_parallel,
    draw_search,
    draw_slice,
    loss_window,
    write_pictures,
)
from studies.harness.report.figures.style import PALETTE, look, new_figure, place, to_svg
from studies.harness.report.results import read_results
from tests.studies.synthetic import SPACE, falling, make_study, make_trial, random_trials

ONE_LR = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}
CHOICES: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["sgd", "adamw"]),
    "direct": CategoricalDistribution([False, True]),
}
STUDIES = {
    "no trial": lambda: make_study(),
    "one trial": lambda: make_study([make_trial(ONE_LR, falling(2.2))]),
    "two equal trials": lambda: make_study([make_trial(ONE_LR, falling(2.2))] * 2),
    "a failed trial": lambda: make_study([make_trial(ONE_LR, [], state="FAIL")]),
    "only pruned": lambda: make_study([make_trial(ONE_LR, [2.9, 2.8], state="PRUNED")] * 3),
    "only diverged": lambda: make_study(
        [make_trial(ONE_LR, [], state="PRUNED", reason="diverged at step 9")] * 12
    ),
    "one parameter": lambda: make_study(
        random_trials(12, lambda p: p["lr"], {"lr": SPACE["lr"]}), {"lr": SPACE["lr"]}
    ),
    "nothing searched": lambda: make_study([make_trial({}, falling(2.2))], {}),
    "choices": lambda: make_study(random_trials(12, lambda p: 2 + p["direct"], CHOICES), CHOICES),
    "a constant parameter": lambda: make_study(
        [make_trial({**ONE_LR, "lr": 0.1 / i}, falling(2.2)) for i in (1, 2)]
    ),
    "sixty trials": lambda: make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])),
}


def axes() -> Axes:
    return place(new_figure(600, 400), 60, 40, 500, 300)


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_has_its_four_pictures(kind: str, tmp_path: Path) -> None:
    write_pictures(read_results(STUDIES[kind]()), tmp_path)

    for name in ("history.png", "importances.png", "parallel.png", "slices.png"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] == 1200
        assert (pixels < 128).sum() > 100  # something is written or drawn


def test_the_best_so_far_is_a_stair_over_the_trial_numbers() -> None:
    results = read_results(
        make_study([make_trial(ONE_LR, falling(loss)) for loss in (2.4, 2.5, 2.2, 2.3)])
    )
    ax = axes()

    draw_history(ax, results)

    (stair,) = ax.lines
    assert np.array_equal(stair.get_xydata(), [[0, 2.4], [1, 2.4], [2, 2.2], [3, 2.2], [3, 2.2]])
    assert ax.get_ylabel() == "dev loss (nats per character)"


def test_the_search_is_a_stair_over_the_band_of_a_blind_draw_of_twice_as_many() -> None:
    results = read_results(
        make_study([make_trial(ONE_LR, falling(loss)) for loss in (2.4, 2.5, 2.2, 2.3)])
    )
    ax = axes()

    draw_search(ax, results, noise_sd=0.01)

    lines = {line.get_label(): np.asarray(line.get_xydata()) for line in ax.lines}
    assert np.array_equal(lines["this study"], [[1, 2.4], [2, 2.4], [3, 2.2], [4, 2.2]])
    assert lines["blind draw, mean"][:, 0].tolist() == [1, 2, 3, 4, 5, 6, 7, 8]
    assert lines["blind draw, mean"][0, 1] == pytest.approx(2.35)
    assert lines["best + seed noise"][0, 1] == pytest.approx(2.21)


def test_a_slice_lays_trials_on_the_search_scale_and_diverged_ones_on_top() -> None:
    trials = [make_trial({**ONE_LR, "lr": lr}, falling(2.1 + lr)) for lr in (0.001, 0.01, 0.1)]
    trials.append(
        make_trial({**ONE_LR, "lr": 1.0}, [], state="PRUNED", reason="diverged at step 9")
    )
    ax = axes()

    draw_slice(ax, read_results(make_study(trials)), "lr")

    points = {c.get_label(): np.asarray(c.get_offsets()) for c in ax.collections}
    assert points["complete"][:, 0] == pytest.approx([0, 1 / 3, 2 / 3])
    assert points["complete"][:, 1] == pytest.approx([2.101, 2.11, 2.2])
    assert points["diverged"][0, 0] == pytest.approx(1.0)
    assert points["diverged"][0, 1] > points["complete"][:, 1].max()
    assert [tick.get_text() for tick in ax.get_xticklabels()] == ["0.001", "0.01", "0.1", "1"]


def test_pruned_trials_do_not_squeeze_the_complete_ones() -> None:
    trials = [make_trial(ONE_LR, falling(2.1 + 0.01 * i)) for i in range(5)]
    trials += [make_trial(ONE_LR, [4.0 + i], state="PRUNED") for i in range(20)]

    low, high = loss_window(read_results(make_study(trials)).trials)

    assert low == 2.1 and 2.14 <= high < 2.2


def test_importances_show_a_bar_for_each_parameter_longest_on_top() -> None:
    results = read_results(make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])))
    ax = axes()

    draw_importances(ax, results)

    widths = [bar.get_width() for bar in ax.patches]  # type: ignore[attr-defined]
    assert widths == sorted(widths) and len(widths) == len(SPACE)
    assert [tick.get_text() for tick in ax.get_yticklabels()][-1] == "block_size"


def test_parallel_coordinates_hold_a_line_for_each_measured_trial() -> None:
    results = read_results(make_study(random_trials(40, lambda p: 2 + 0.5 / p["block_size"])))
    ax = axes()

    draw_parallel(ax, results)

    lines = [segment for c in ax.collections for segment in c.get_segments()]  # type: ignore[attr-defined]
    assert len(lines) == len(results.measured)
    assert {len(line) for line in lines} == {len(SPACE) + 1}


def test_svg_is_well_formed_takes_its_colours_from_the_page_and_tells_a_point_when_touched() -> (
    None
):
    results = read_results(
        make_study([make_trial(ONE_LR, falling(2.25)), make_trial(ONE_LR, falling(2.5))])
    )
    with look():
        ax = axes()
        draw_history(ax, results)
        text = to_svg(ax.get_figure(root=True), "History & more")  # type: ignore[arg-type]

    ElementTree.fromstring(text.replace("xlink:href", "href"))
    assert not any(colour in text for colour in PALETTE.values())
    assert "var(--main)" in text and "<title>trial 0: 2.2500, finished</title>" in text
    assert 'aria-label="History &amp; more"' in text
    assert len(re.findall(r' id="([^"]+)"', text)) == len(set(re.findall(r' id="([^"]+)"', text)))
    assert text.startswith("<svg viewBox=") and "<text" in text


def test_drawing_leaves_matplotlibs_settings_as_they_were() -> None:
    before = dict(matplotlib.rcParams)
    with look():
        draw_history(axes(), read_results(optuna.create_study()))

    assert dict(matplotlib.rcParams) == before
