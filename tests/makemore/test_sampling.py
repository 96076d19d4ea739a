"""Sampling of words and their scores."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus, Examples
from makemore.errors import UserError
from makemore.model import MLP
from makemore.sampling import sample_words, score_words
from makemore.words import Vocab

VOCAB = Vocab("abc")
PROBABILITIES = [0.4, 0.3, 0.2, 0.1]  # of the boundary, a, b and c


def random_model() -> MLP:
    return MLP(Config(block_size=2, n_embd=3, n_hidden=5, seed=1), 4)


def unigram_model() -> MLP:
    """Return a model that predicts PROBABILITIES after every context."""
    model = MLP(Config(block_size=2, n_embd=1, n_hidden=1), 4)
    model.flat.zero_()
    with torch.no_grad():
        model.b2.copy_(torch.tensor(PROBABILITIES).log())
    return model


def test_seed_alone_decides_the_words() -> None:
    state = torch.get_rng_state()

    words = sample_words(random_model(), VOCAB, 20, seed=3)

    assert words == sample_words(random_model(), VOCAB, 20, seed=3)
    assert words != sample_words(random_model(), VOCAB, 20, seed=4)
    # The global generator is not touched.
    assert torch.equal(torch.get_rng_state(), state)


def test_longer_list_begins_with_the_shorter_one() -> None:
    many = sample_words(random_model(), VOCAB, 5000, seed=3)

    assert len(many) == 5000
    assert sample_words(random_model(), VOCAB, 7, seed=3) == many[:7]
    assert sample_words(random_model(), VOCAB, 0, seed=3) == []


def test_characters_follow_the_models_probabilities() -> None:
    words = sample_words(unigram_model(), VOCAB, 20_000, seed=0)

    # Every draw has this distribution, the end too; four standard deviations are allowed.
    draws = "".join(word + "." for word in words)
    for symbol, p in zip(VOCAB.symbols, PROBABILITIES, strict=True):
        assert draws.count(symbol) / len(draws) == pytest.approx(
            p, abs=4 * math.sqrt(p * (1 - p) / len(draws))
        )


def test_temperature_is_a_power_of_the_probabilities() -> None:
    words = sample_words(unigram_model(), VOCAB, 20_000, seed=0, temperature=0.5)
    draws = "".join(word + "." for word in words)

    squares = [p**2 for p in PROBABILITIES]
    assert draws.count("c") / len(draws) == pytest.approx(squares[3] / sum(squares), abs=0.003)


@pytest.mark.parametrize("temperature", [1e-3, 1e-300])
def test_temperature_near_zero_is_greedy(temperature: float) -> None:
    model = random_model()
    greedy = ""
    context = [0, 0]
    while len(greedy) < 10 and (code := int(model(torch.tensor([context])).argmax())) != 0:
        greedy += VOCAB.symbols[code]
        context = [context[1], code]

    assert len(greedy) > 1
    assert (
        sample_words(model, VOCAB, 3, seed=0, temperature=temperature, max_length=10)
        == [greedy] * 3
    )


def test_words_continue_the_prefix() -> None:
    model = random_model()
    context = torch.tensor([[2, 3]])  # "bc"
    likeliest = int(model(context).argmax())

    words = sample_words(model, VOCAB, 50, seed=1, prefix="abc")
    cold = sample_words(model, VOCAB, 1, seed=1, prefix="abc", temperature=1e-3)[0]

    assert all(word.startswith("abc") for word in words) and len(set(words)) > 1
    assert cold[3:4] == (VOCAB.symbols[likeliest] if likeliest else "")


def test_word_without_an_end_is_cut() -> None:
    model = unigram_model()
    with torch.no_grad():
        model.b2[0] = -1e9

    assert {len(word) for word in sample_words(model, VOCAB, 9, seed=0, max_length=6)} == {6}
    assert sample_words(model, VOCAB, 2, seed=0, max_length=2, prefix="ab") == ["ab", "ab"]


def test_score_is_mean_negative_log_probability() -> None:
    # ab: a, b, end.
    expected = -(math.log(0.3) + math.log(0.2) + math.log(0.4)) / 3

    scores = score_words(unigram_model(), VOCAB, ["ab", "c"])

    assert scores.tolist() == pytest.approx(
        [expected, -(math.log(0.1) + math.log(0.4)) / 2], rel=1e-6
    )
    assert score_words(unigram_model(), VOCAB, []).shape == (0,)


def test_weighted_mean_of_scores_is_the_loss(corpus: Corpus) -> None:
    words = ["emma", "olivia", "ava"] * 600
    model = MLP(Config(), len(corpus.vocab))
    lengths = np.array([len(word) + 1 for word in words])
    X, Y = Examples.of(words, corpus.vocab).tensors(3)

    scores = score_words(model, corpus.vocab, words)

    assert np.average(scores, weights=lengths) == pytest.approx(model.loss(X, Y).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n": -1}, "n must be at least 0, but got n=-1"),
        ({"temperature": 0.0}, "temperature must be greater than 0"),
        ({"temperature": math.nan}, "temperature must be greater than 0"),
        ({"temperature": math.inf}, "temperature must be greater than 0"),
        ({"prefix": "a."}, "prefix 'a.' holds '.', which ends a word"),
        ({"prefix": "ax"}, "'ax' holds 'x', which is not one of the symbols"),
        ({"max_length": 0}, "max_length must be at least 1"),
        (
            {"max_length": 2, "prefix": "abc"},
            "at least the length of the prefix, but got max_length=2, prefix='abc'",
        ),
    ],
)
def test_argument_out_of_range_is_refused(arguments: dict, message: str) -> None:
    with pytest.raises(UserError) as caught:
        sample_words(random_model(), VOCAB, **{"n": 1, "seed": 0, **arguments})

    assert message in str(caught.value)


def test_prefix_may_contain_a_dot_of_the_words() -> None:
    vocab = Vocab.of(["M.", "a"])  # the boundary is "|"
    model = MLP(Config(block_size=2, n_embd=3, n_hidden=5, seed=1), len(vocab))

    words = sample_words(model, vocab, 50, seed=1, prefix="M.")

    assert all(word.startswith("M.") and "|" not in word for word in words)
    assert len(set(words)) > 1 and np.isfinite(score_words(model, vocab, words)).all()
    with pytest.raises(UserError, match=r"prefix 'M\|' holds '\|', which ends a word"):
        sample_words(model, vocab, 1, seed=1, prefix="M|")


def test_diverged_model_is_refused() -> None:
    model = random_model()
    model.flat[0] = math.inf

    with pytest.raises(UserError, match="weights are not finite"):
        sample_words(model, VOCAB, 1, seed=0)
