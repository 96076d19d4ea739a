"""The model in plain torch: the lecture's numbers, and computations by hand."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Literal

import pytest
import torch

from makemore.config import Config
from makemore.data import build_dataset, load_corpus
from makemore.draws import dropout_keep
from makemore.dropout import seed_dropout
from makemore.errors import UserError
from makemore.model import MLP, n_params, parameter_shapes
from makemore.words import read_words

LECTURE_SEED = 2147483647
SMALL = Config(n_embd=2, n_hidden=100)  # the first model of the lecture
TINY = Config(block_size=2, n_embd=2, n_hidden=3, direct=True)


def test_sizes_are_the_lectures() -> None:
    assert n_params(SMALL, 27) == 3_481
    assert n_params(Config(), 27) == 11_897
    assert MLP(Config(), 27).flat.numel() == 11_897


def test_initial_loss_of_small_model_is_the_lectures(lecture_names: Path) -> None:
    # Lecture: 17.7697 on the 32 examples of the first five words; it draws the parameters in the
    # order C, W1, b1, W2, b2.
    X, Y = build_dataset(read_words(lecture_names)[:5], load_corpus(lecture_names).vocab, 3)
    model = MLP(SMALL, 27, generator=torch.Generator().manual_seed(LECTURE_SEED))

    assert len(Y) == 32
    assert model.loss(X, Y).item() == pytest.approx(17.7697, abs=1e-4)


def test_first_loss_of_large_model_is_the_lectures(lecture_names: Path) -> None:
    # Lecture: 27.8817 on the first minibatch, drawn from the same generator after the parameters.
    X, Y = load_corpus(lecture_names).train.tensors(3)
    generator = torch.Generator().manual_seed(LECTURE_SEED)
    model = MLP(Config(), 27, generator=generator)
    rows = torch.randint(0, len(X), (32,), generator=generator)

    assert model.loss(X[rows], Y[rows]).item() == pytest.approx(27.8817, abs=1e-4)


def test_forward_pass_is_equation_1() -> None:
    # Bengio et al. 2003, eq. 1: y = b + W x + U tanh(d + H x), one number at a time.
    model = MLP(TINY, 4)
    context = [3, 1]
    p = {name: value.tolist() for name, value in model.named_parameters()}
    x = [value for code in context for value in p["C"][code]]
    h = [math.tanh(p["b1"][j] + sum(x[i] * p["W1"][i][j] for i in range(4))) for j in range(3)]
    expected = [
        p["b2"][v]
        + sum(h[j] * p["W2"][j][v] for j in range(3))
        + sum(x[i] * p["Wd"][i][v] for i in range(4))
        for v in range(4)
    ]

    logits = model(torch.tensor([context]))

    assert logits.tolist()[0] == pytest.approx(expected, abs=1e-5)
    assert model.hidden(torch.tensor([context])).tolist()[0] == pytest.approx(h, abs=1e-6)


def test_loss_is_mean_cross_entropy_in_nats() -> None:
    model = MLP(TINY, 4)
    X, Y = torch.tensor([[0, 1], [2, 3], [0, 0]]), torch.tensor([1, 0, 2])
    logits = model(X).tolist()
    nats = [
        math.log(sum(math.exp(a) for a in row)) - row[y]
        for row, y in zip(logits, Y.tolist(), strict=True)
    ]

    assert model.loss(X, Y).item() == pytest.approx(sum(nats) / 3, rel=1e-5)


def test_uniform_guess_costs_ln_27() -> None:
    model = MLP(Config(), 27)
    model.flat.zero_()
    X = torch.zeros((1, 3), dtype=torch.int64)

    assert model.loss(X, torch.tensor([5])).item() == pytest.approx(3.2958, abs=1e-4)


def test_dropout_factors_scale_the_hidden_units() -> None:
    model, X = MLP(TINY.replace(direct=False, dropout=0.5), 4), torch.tensor([[3, 1]])
    whole = model(X)
    seed_dropout(model, seed=2)
    keep = torch.from_numpy(dropout_keep(2, 0, (1, TINY.n_hidden), 0.5))

    assert 0 < keep.count_nonzero() < TINY.n_hidden
    expected = (keep * model.hidden(X)) @ model.W2 + model.b2
    assert torch.allclose(model.train()(X), expected, atol=1e-6)
    # A new model is in evaluation mode, without dropout.
    assert torch.allclose(whole, model.hidden(X) @ model.W2 + model.b2, atol=1e-6)


def test_parameters_are_views_of_one_vector() -> None:
    model = MLP(TINY, 4)

    # In the order in which they are drawn.
    assert list(parameter_shapes(TINY, 4)) == [name for name, _ in model.named_parameters()]
    assert torch.equal(torch.cat([p.detach().flatten() for p in model.parameters()]), model.flat)

    model.flat.fill_(0.5)

    assert all((p == 0.5).all() for p in model.parameters())


@pytest.mark.parametrize("init", ["lecture", "kaiming"])
def test_config_alone_decides_the_initial_weights(init: Literal["lecture", "kaiming"]) -> None:
    config = Config(init=init)
    torch.manual_seed(0)
    state = torch.get_rng_state()

    one, again = (MLP(config, 27) for _ in range(2))
    other = MLP(config.replace(seed=1), 27)

    assert torch.equal(one.flat, again.flat) and not torch.equal(one.flat, other.flat)
    # The global generator is not touched.
    assert torch.equal(torch.get_rng_state(), state)


def test_kaiming_scales_the_weights() -> None:
    # He et al. 2015 with the gain of tanh: W1 * (5/3) / sqrt(30); W2 * 0.01; zero biases.
    model = MLP(Config(init="kaiming", n_hidden=2000, direct=True), 27)

    assert model.C.std().item() == pytest.approx(1, rel=0.1)
    assert model.W1.std().item() == pytest.approx(5 / 3 / math.sqrt(30), rel=0.02)
    assert model.W2.std().item() == pytest.approx(0.01, rel=0.02)
    assert model.Wd.std().item() == pytest.approx(0.01, rel=0.1)
    assert not model.b1.any() and not model.b2.any()


def test_model_too_large_for_memory_is_refused() -> None:
    with pytest.raises(
        UserError,
        match=r"a model of 137,438,363,652 parameters \(512 GiB\) does not fit into memory",
    ):
        MLP(Config(n_hidden=65_535, n_embd=65_535, block_size=32), 27)
