"""The decade of learning rates around a range test's suggestion."""

from __future__ import annotations

import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from studies.harness.search.learning_rate.range_test import decade_around_suggestion


def test_decade_does_not_depend_on_torch_threads(small_corpus: Corpus) -> None:
    config = Config(n_embd=2, n_hidden=8, batch_size=4)
    torch.set_num_threads(2)
    lo, hi = decade_around_suggestion(config, small_corpus)
    assert torch.get_num_threads() == 1
    assert decade_around_suggestion(config, small_corpus) == (lo, hi)

    assert hi / lo == pytest.approx(10, rel=0.01)
    # Three significant digits.
    assert all(float(f"{end:.3g}") == end for end in (lo, hi))
