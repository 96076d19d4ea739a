"""The PNG files of every kind of study."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution
from PIL import Image

from studies.harness.report.figures.pictures import curves, write_pictures
from studies.harness.report.figures.style import look, save_png
from studies.harness.report.results import read_results
from tests.studies.synthetic import PARAMS, SPACE, falling, make_study, make_trial, random_trials

CHOICES: dict[str, BaseDistribution] = {
    "optimizer": CategoricalDistribution(["sgd", "adamw"]),
    "direct": CategoricalDistribution([False, True]),
}
DIVERGED: dict[str, Any] = {"state": "PRUNED", "reason": "diverged at step 9"}
STUDIES = {
    "no trial": lambda: make_study(),
    "one trial": lambda: make_study([make_trial(PARAMS, falling(2.2))]),
    "two equal trials": lambda: make_study([make_trial(PARAMS, falling(2.2))] * 2),
    "a failed trial": lambda: make_study([make_trial(PARAMS, [], state="FAIL")]),
    "only pruned": lambda: make_study([make_trial(PARAMS, [2.9, 2.8], state="PRUNED")] * 3),
    "only diverged": lambda: make_study([make_trial(PARAMS, [], **DIVERGED)] * 12),
    "one parameter": lambda: make_study(
        random_trials(12, lambda p: p["lr"], {"lr": SPACE["lr"]}), {"lr": SPACE["lr"]}
    ),
    "nothing searched": lambda: make_study([make_trial({}, falling(2.2))], {}),
    "choices": lambda: make_study(random_trials(12, lambda p: 2 + p["direct"], CHOICES), CHOICES),
    "a constant parameter": lambda: make_study(
        [make_trial({**PARAMS, "lr": 0.1 / i}, falling(2.2)) for i in (1, 2)]
    ),
    "sixty trials": lambda: make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"])),
}


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_has_curves(kind: str, tmp_path: Path) -> None:
    with look():
        save_png(curves(read_results(STUDIES[kind]())), tmp_path / "curves.png")

    with Image.open(tmp_path / "curves.png") as image:
        assert (np.asarray(image.convert("L")) < 128).sum() > 100


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_has_four_pictures(kind: str, tmp_path: Path) -> None:
    write_pictures(read_results(STUDIES[kind]()), tmp_path)

    for name in ("history.png", "importances.png", "parallel.png", "slices.png"):
        with Image.open(tmp_path / name) as image:
            pixels = np.asarray(image.convert("L"))
        assert pixels.shape[1] == 1200
        # Something is written or drawn.
        assert (pixels < 128).sum() > 100
