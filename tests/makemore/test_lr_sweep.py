"""The learning-rate range test: its losses, its end, and its suggestions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.errors import UserError
from makemore.lr_sweep import DEFAULT_RULE, RULES, LrSweep, lr_range_test, smooth
from makemore.model import MLP

TINY = Config(n_embd=2, n_hidden=8, batch_size=4)
LECTURE = {"2 and 100": Config(n_embd=2, n_hidden=100), "10 and 200": Config()}


def sweep_of(losses: np.ndarray, lo: float = 1e-3, hi: float = 1.0) -> LrSweep:
    lrs = 10 ** np.linspace(math.log10(lo), math.log10(hi), len(losses))
    return LrSweep(TINY, lrs, losses, None)


def test_losses_equal_plain_gradient_descent(small_corpus: Corpus) -> None:
    # The lecture's loop without its three mistakes: the gradient is subtracted, losses are in one
    # list, and a step has one minibatch.
    config = TINY.replace(weight_decay=0.1)
    lrs = 10 ** torch.linspace(-3, 0, 50, dtype=torch.float64)
    model = MLP(config, len(small_corpus.vocab))
    expected = []
    X, Y = small_corpus.train.tensors(3)
    for i, lr in enumerate(lrs.tolist()):
        rows = torch.from_numpy(batch_rows(config.seed, i, 4, len(Y)))
        loss = model.loss(X[rows], Y[rows])
        loss.backward()
        with torch.no_grad():
            for p in model.parameters():
                assert p.grad is not None
                p.copy_(p - lr * 0.1 * p - lr * p.grad)
                p.grad = None
        expected.append(loss.item())

    sweep = lr_range_test(config, small_corpus, n_steps=50, stop=None)

    assert sweep.lrs.tolist() == pytest.approx(lrs.tolist(), rel=1e-9)
    assert sweep.losses.tolist() == pytest.approx(expected, rel=1e-4)
    assert sweep.stopped_at is None


def test_first_adamw_step_has_the_size_of_the_lr(small_corpus: Corpus) -> None:
    # Kingma & Ba 2015, section 2.1: the size of Adam's first step is lr for every gradient. The
    # weight decay is separate.
    config = TINY.replace(optimizer="adamw", weight_decay=0.5)
    model = MLP(config, len(small_corpus.vocab))
    batches = [
        small_corpus.train.tensors(3, batch_rows(config.seed, i, 4, len(small_corpus.train)))
        for i in range(2)
    ]
    first = model.loss(*batches[0])
    gradients = torch.autograd.grad(first, list(model.parameters()))
    with torch.no_grad():
        for p, gradient in zip(model.parameters(), gradients, strict=True):
            p.copy_(p * (1 - 0.01 * 0.5) - 0.01 * gradient.sign())

    sweep = lr_range_test(config, small_corpus, lo=0.01, n_steps=10)

    assert sweep.losses[:2].tolist() == pytest.approx(
        [first.item(), model.loss(*batches[1]).item()], rel=1e-4
    )


def test_sweep_is_repeatable_and_uses_the_config(
    small_corpus: Corpus,
) -> None:
    state = torch.get_rng_state()
    config = TINY.replace(dropout=0.3, optimizer="adamw")

    one, two = (lr_range_test(config, small_corpus, n_steps=30) for _ in range(2))
    other = lr_range_test(config.replace(dropout=0.0), small_corpus, n_steps=30)

    assert one.losses.tolist() == two.losses.tolist() != other.losses.tolist()
    # The global generator is not touched.
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("size", LECTURE)
@pytest.mark.parametrize("seed", range(5))
def test_suggestions_agree_with_the_lecture(corpus: Corpus, size: str, seed: int) -> None:
    # The lecture finds 0.1 in its plot.
    sweep = lr_range_test(LECTURE[size].replace(seed=seed), corpus)

    assert 0.03 < sweep.suggest() < 0.3
    assert not sweep.at_edge and len(sweep.lrs) == 1000
    # The curve starts high, has a valley, and rises on the right.
    assert sweep.smoothed[0] > 2 * sweep.smoothed.min() < sweep.smoothed[-1] * 1.4


def test_suggestion_for_adamw_is_far_lower(corpus: Corpus) -> None:
    sweep = lr_range_test(Config(optimizer="adamw", init="kaiming"), corpus, lo=1e-4)

    assert 1e-3 < sweep.suggest() < 1e-2
    assert sweep.stopped_at is not None and 0.03 < sweep.stopped_at < 1


def test_growing_loss_stops_the_test(small_corpus: Corpus) -> None:
    config = TINY.replace(init="kaiming")
    stopped = lr_range_test(config, small_corpus, hi=1e3, n_steps=300)
    whole = lr_range_test(config, small_corpus, hi=1e3, n_steps=300, stop=None)
    S = len(stopped.lrs)

    assert S < 300 and stopped.stopped_at == pytest.approx(1e-3 * 10 ** (6 * S / 299))
    assert len(stopped.losses) == S
    # The rule: the running mean, corrected for its start at zero, exceeds four times its lowest.
    running = 0.0
    means = []
    for i, loss in enumerate(whole.losses[: S + 1], 1):
        running = 0.95 * running + 0.05 * loss
        means.append(running / (1 - 0.95**i))
    assert means[-1] > 4 * min(means)
    assert all(means[i] <= 4 * min(means[: i + 1]) for i in range(S))
    # Without `stop` the test continues; until then it is the same.
    assert len(whole.lrs) > S and whole.losses[:S].tolist() == stopped.losses.tolist()


def test_infinite_loss_always_stops_the_test(small_corpus: Corpus) -> None:
    sweep = lr_range_test(TINY, small_corpus, hi=1e38, n_steps=300, stop=None)

    assert sweep.stopped_at is not None and len(sweep.losses) < 300
    assert np.isfinite(sweep.losses).all()
    with pytest.raises(
        UserError, match=r"the loss blew up at learning rate .*, at step \d; give a lower lo\."
    ):
        lr_range_test(TINY, small_corpus, lo=1e37, hi=1e38)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lo": 0.0}, "0 < lo < hi <= 1e38, but got lo=0.0"),
        ({"lo": 1.0, "hi": 1.0}, "but got lo=1.0, hi=1.0"),
        ({"hi": 1e39}, "0 < lo < hi <= 1e38"),
        ({"hi": math.nan}, "0 < lo < hi"),
        ({"n_steps": 9}, "n_steps must be at least 10, but got n_steps=9"),
        ({"stop": 1.0}, "stop must be greater than 1, or None"),
    ],
)
def test_invalid_range_is_refused(small_corpus: Corpus, arguments: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        lr_range_test(TINY, small_corpus, **arguments)


# --- smoothing and rules


def test_smoothing_keeps_lines_and_averages_noise() -> None:
    x = np.linspace(-3, 0, 1000)
    noise = np.random.default_rng(0).normal(size=1000)

    # A centred window has no lag, so far from the ends a line is unchanged.
    assert smooth(x, 2 * x)[200:-200] == pytest.approx(2 * x[200:-200], abs=1e-6)
    # Variance 1 / (2 sqrt(pi) window / spacing): the effective number of points is 118.
    assert smooth(x, noise).std() == pytest.approx(1 / math.sqrt(118), rel=0.5)
    assert smooth(x, np.ones(1000)) == pytest.approx(np.ones(1000))


# The parabola (x + 1)**2 + 0.1 between -3 and 0 has the slope 2 (x + 1), steepest at -3. It is
# within 10% of its minimum for |x + 1| < 0.1. It falls from -3 to -1, and two thirds of that is
# -5/3. It has 15% of the steepest slope at -1.3.
@pytest.mark.parametrize(
    ("rule", "exponent"),
    [
        ("basin", -1),
        ("minimum", -1),
        ("tenth", -2),
        ("steepest", -3),
        ("valley", -5 / 3),
        ("slide", -1.3),
    ],
)
def test_rule_on_a_parabola_by_hand(rule: str, exponent: float) -> None:
    x = np.linspace(-3, 0, 1001)

    assert RULES[rule](x, (x + 1) ** 2 + 0.1) == pytest.approx(exponent, abs=0.01)


def test_basin_is_the_middle_of_a_flat_bottom() -> None:
    x = np.linspace(-3, 0, 301)
    bottom = np.where((x > -2) & (x < -0.5), 1.0, 5.0)

    assert RULES["basin"](x, bottom) == pytest.approx(-1.25, abs=0.01)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_rules_work_on_curves_without_a_valley(rule: str, slope: float) -> None:
    x = np.linspace(-3, 0, 20)

    assert -4 <= RULES[rule](x, 5 + slope * x) <= 0


def test_minimum_at_the_edge_is_reported() -> None:
    falling = np.linspace(3, 2, 100)

    assert sweep_of(falling).at_edge and sweep_of(falling[::-1]).at_edge
    assert not sweep_of(np.abs(np.linspace(-1, 1, 100))).at_edge


def test_suggestions_are_lrs_of_known_rules() -> None:
    sweep = sweep_of((np.linspace(-3, 0, 1001) + 1) ** 2 + 0.1)

    assert sweep.suggest() == sweep.suggest(DEFAULT_RULE) == pytest.approx(0.1, rel=0.05)
    assert sweep.suggest("tenth") == pytest.approx(0.01, rel=0.05)
    with pytest.raises(
        UserError, match="unknown rule 'best'; use one of basin, minimum, steepest, tenth"
    ):
        sweep.suggest("best")
