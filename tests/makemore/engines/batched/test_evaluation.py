"""Dev losses of the batched engine: exact means over the split."""

from __future__ import annotations

import pytest
import torch

from makemore.data import Corpus
from tests.makemore.engines.batched.runs import TINY, engine_for, run_all


# With little memory the evaluation is split by contexts and by models; the mean is the same.
def test_dev_losses_do_not_depend_on_pieces(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    def losses() -> list[float]:
        engine = engine_for(corpus, 2, TINY, dtype=torch.float64)
        return [
            point.dev_loss
            for result in run_all(engine, [TINY, TINY.replace(seed=5)])
            for point in result.history
        ]

    whole = losses()
    monkeypatch.setattr(
        "makemore.engines.batched.evaluation.evaluation_bytes", lambda device: 10_000
    )
    assert losses() == pytest.approx(whole, rel=1e-12)
