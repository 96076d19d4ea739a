"""The MLP with batch normalisation of lecture 3."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from makemore.data import Corpus
from makemore.model_class import read_model_config
from makemore.models import build, count_params
from studies.batch_norm import BatchNormMLP
from tests.conftest import ROOT
from tests.studies.conftest import states_of

FILE = ROOT / "experiments" / "configs" / "batch_norm.toml"


def test_size_is_that_of_the_lecture() -> None:
    # 27 symbols; the number is printed in the lecture.
    assert count_params(build(BatchNormMLP, read_model_config(FILE, BatchNormMLP), 27)) == 12_097


def test_first_loss_is_that_of_a_uniform_guess(corpus: Corpus) -> None:
    model = build(BatchNormMLP, read_model_config(FILE, BatchNormMLP), len(corpus.vocab)).train()
    X, Y = corpus.train.tensors(3, slice(0, 256))

    loss = torch.nn.functional.cross_entropy(model(X), Y).item()
    assert loss == pytest.approx(math.log(27), abs=0.1)


def test_script_searches_it(names: Path, run_file: Any) -> None:
    flags = "--trials 2 --steps 10 --repeats 0 --workers 2 --device cpu".split()
    ran = run_file("studies/batch_norm.py", *flags, "--names", names)

    assert ran.code == 0 and "Winner: trial" in ran.out
    assert len(states_of("batch_norm")) == 2
