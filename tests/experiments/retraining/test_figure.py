"""The figure of a retraining."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.image import imread

from experiments.retraining.evaluation import Baseline
from experiments.retraining.figure import draw_comparison
from experiments.retraining.results import SeedResult
from makemore.config import Config
from makemore.data import Corpus
from makemore.trainer import train


@pytest.mark.parametrize("with_dev", [True, False])
def test_figure_is_drawn_with_and_without_dev_loss(
    tmp_path: Path, small_corpus: Corpus, with_dev: bool
) -> None:
    config = Config(max_steps=40, eval_interval=5, n_hidden=8)
    result = train(config, small_corpus, device="cpu")
    losses = {"train_loss": 2.2, "test_loss": 2.4}
    if with_dev:
        losses["dev_loss"] = 2.3
    seed = SeedResult(result, losses, np.zeros(1))
    baselines = [Baseline("uniform", {"test_loss": 3.3}), Baseline("other", {"train_loss": 2.0})]

    path = draw_comparison(tmp_path / "x.png", [("a", [seed, seed]), ("b", [seed])], baselines)

    pixels = imread(path)
    assert pixels.shape[:2] == (460, 1180)
    # Both panels hold marks.
    for panel in (pixels[:, :590], pixels[:, 590:]):
        assert len(np.unique(panel.reshape(-1, panel.shape[2]), axis=0)) > 20
