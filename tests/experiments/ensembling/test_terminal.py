"""The table and the sentences about an ensemble."""

from __future__ import annotations

import io

import numpy as np
from rich.console import Console

from experiments.ensembling.candidates import Candidate
from experiments.ensembling.results import Measured, Selected
from experiments.ensembling.terminal import show
from makemore.config import Config
from makemore.kneser_ney import KneserNey
from makemore.model import MLP
from makemore.selection import ALONE, ENSEMBLE, ENSEMBLE_MIXED, HALF, MIXED, Choice

LOSSES = {ALONE: 2.0, HALF: 1.98, MIXED: 1.97, ENSEMBLE: 1.95, ENSEMBLE_MIXED: 1.94}


def test_table_and_sentences_are_printed() -> None:
    model = MLP(Config(block_size=2, n_embd=2, n_hidden=2), 3)
    candidates = [Candidate("one", number, 2.0 + number, model) for number in (0, 7)]
    counts = KneserNey(np.array([[0, 1]]), np.array([1]), 3)
    choice = Choice(np.array([1, 3]), 0, counts_weight=0.25, best_counts_weight=0.5)
    test = {name: loss + 0.5 for name, loss in LOSSES.items()}
    same_words = {name: loss - 0.5 for name, loss in LOSSES.items()}
    selected = Selected(candidates, choice, counts, Measured(LOSSES, []), same_words)
    screen = io.StringIO()

    show(Console(file=screen, width=200), selected, Measured(test, []))

    lines = [" ".join(line.split()) for line in screen.getvalue().splitlines()]
    assert lines[:3] == [
        "2 of 2 kept models, 4 picks with replacement:",
        "3 x one trial 7, dev loss 9.0000",
        "1 x one trial 0, dev loss 2.0000",
    ]
    assert f"{MIXED} 0.50 1.9700 2.4700 11.822" in lines
    assert f"{ENSEMBLE_MIXED} 0.25 1.9400 2.4400 11.473" in lines
    assert any("On these words its loss is 1.4400" in line for line in lines)
    assert any(line.startswith("The net alone is one trial 0 on test") for line in lines)
