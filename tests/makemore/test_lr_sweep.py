"""The learning-rate range test: that it measures what it says, and what it suggests."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.lr_sweep import DEFAULT_RULE, RULES, LrSweep, lr_range_test, plot_lr_sweep, smooth
from makemore.model import MLP

TINY = Config(n_embd=2, n_hidden=8, batch_size=4)
LECTURE = {"2 and 100": Config(n_embd=2, n_hidden=100), "10 and 200": Config()}


def sweep_of(losses: np.ndarray, lo: float = 1e-3, hi: float = 1.0) -> LrSweep:
    return LrSweep(
        TINY, 10 ** np.linspace(math.log10(lo), math.log10(hi), len(losses)), losses, None
    )


def test_losses_are_those_of_plain_descent_at_rising_rates(small_corpus: Corpus) -> None:
    # The lecture's loop without its three slips: the gradient is subtracted, each loss goes to its own list, and a
    # step has one minibatch.
    config = TINY.replace(weight_decay=0.1)
    lrs = 10 ** torch.linspace(-3, 0, 50, dtype=torch.float64)
    model, expected = MLP(config, len(small_corpus.vocab)), []
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


def test_adamw_moves_every_weight_by_the_learning_rate_at_first(small_corpus: Corpus) -> None:
    # Kingma & Ba 2015, section 2.1: Adam's first step is lr in size, whatever the gradient's; the decay is apart.
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


def test_a_sweep_repeats_itself_and_draws_nothing_from_the_global_generator(
    small_corpus: Corpus,
) -> None:
    state = torch.get_rng_state()
    config = TINY.replace(dropout=0.3, optimizer="adamw")

    one, two = (lr_range_test(config, small_corpus, n_steps=30) for _ in range(2))

    assert one.losses.tolist() == two.losses.tolist()
    assert torch.equal(torch.get_rng_state(), state)
    assert (
        one.losses.tolist()
        != lr_range_test(TINY.replace(optimizer="adamw"), small_corpus, n_steps=30).losses.tolist()
    )


@pytest.mark.parametrize("size", LECTURE)
@pytest.mark.parametrize("seed", range(5))
def test_the_suggestion_for_the_lectures_models_is_the_lectures(
    corpus: Corpus, size: str, seed: int
) -> None:
    # The lecture reads 0.1 off its plot.
    sweep = lr_range_test(LECTURE[size].replace(seed=seed), corpus)

    assert 0.03 < sweep.suggest() < 0.3
    assert not sweep.at_edge and len(sweep.lrs) == 1000
    # The picture's shape: high at first, the valley, and up again on the right.
    assert sweep.smoothed[0] > 2 * sweep.smoothed.min() < sweep.smoothed[-1] * 1.4


def test_the_suggestion_for_adamw_is_far_lower(corpus: Corpus) -> None:
    sweep = lr_range_test(Config(optimizer="adamw", init="kaiming"), corpus, lo=1e-4)

    assert 1e-3 < sweep.suggest() < 1e-2
    assert sweep.stopped_at is not None and 0.03 < sweep.stopped_at < 1


def test_the_test_stops_where_the_loss_has_grown_and_says_where(small_corpus: Corpus) -> None:
    config = TINY.replace(init="kaiming")
    stopped = lr_range_test(config, small_corpus, hi=1e3, n_steps=300)
    whole = lr_range_test(config, small_corpus, hi=1e3, n_steps=300, stop=None)
    S = len(stopped.lrs)

    assert S < 300 and stopped.stopped_at == pytest.approx(1e-3 * 10 ** (6 * S / 299))
    assert len(stopped.losses) == S
    # The rule: a running mean, without the zero that it started from, above four times its lowest.
    running, means = 0.0, []
    for i, loss in enumerate(whole.losses[: S + 1], 1):
        running = 0.95 * running + 0.05 * loss
        means.append(running / (1 - 0.95**i))
    assert means[-1] > 4 * min(means) and all(means[i] <= 4 * min(means[: i + 1]) for i in range(S))
    # Without the option it goes on; up to there it is the same test.
    assert len(whole.lrs) > S and whole.losses[:S].tolist() == stopped.losses.tolist()


def test_a_loss_that_is_not_finite_always_stops(small_corpus: Corpus) -> None:
    sweep = lr_range_test(TINY, small_corpus, hi=1e38, n_steps=300, stop=None)

    assert (
        sweep.stopped_at is not None and np.isfinite(sweep.losses).all() and len(sweep.losses) < 300
    )
    with pytest.raises(
        ValueError, match=r"the loss blew up at learning rate .*, at step \d; give a lower lo\."
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
def test_a_senseless_range_is_refused(small_corpus: Corpus, arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        lr_range_test(TINY, small_corpus, **arguments)


# --- smoothing and rules


def test_smoothing_keeps_lines_and_averages_noise() -> None:
    x = np.linspace(-3, 0, 1000)
    noise = np.random.default_rng(0).normal(size=1000)

    # A centred window has no lag: away from the ends a line stays where it is.
    assert smooth(x, 2 * x)[200:-200] == pytest.approx(2 * x[200:-200], abs=1e-6)
    # Variance 1 / (2 sqrt(pi) window / spacing): the effective number of points is 118.
    assert smooth(x, noise).std() == pytest.approx(1 / math.sqrt(118), rel=0.5)
    assert smooth(x, np.ones(1000)) == pytest.approx(np.ones(1000))


# On the parabola (x + 1)**2 + 0.1 between -3 and 0: slope 2 (x + 1), steepest at -3, within 10% for |x + 1| < 0.1;
# falling from -3 to -1, two thirds of which is -5/3; 15% of the steepest slope at -1.3.
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
def test_a_rule_reads_what_it_says_off_a_parabola(rule: str, exponent: float) -> None:
    x = np.linspace(-3, 0, 1001)

    assert RULES[rule](x, (x + 1) ** 2 + 0.1) == pytest.approx(exponent, abs=0.01)


def test_the_basin_is_the_whole_of_a_flat_bottom() -> None:
    x = np.linspace(-3, 0, 301)
    bottom = np.where((x > -2) & (x < -0.5), 1.0, 5.0)

    assert RULES["basin"](x, bottom) == pytest.approx(-1.25, abs=0.01)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("slope", [-1.0, 0.0, 1.0])
def test_rules_answer_on_curves_without_a_valley(rule: str, slope: float) -> None:
    x = np.linspace(-3, 0, 20)

    assert -4 <= RULES[rule](x, 5 + slope * x) <= 0


def test_a_minimum_at_the_edge_is_said() -> None:
    falling = np.linspace(3, 2, 100)

    assert sweep_of(falling).at_edge and sweep_of(falling[::-1]).at_edge
    assert not sweep_of(np.abs(np.linspace(-1, 1, 100))).at_edge


def test_suggestions_are_learning_rates_and_unknown_rules_are_refused() -> None:
    sweep = sweep_of((np.linspace(-3, 0, 1001) + 1) ** 2 + 0.1)

    assert sweep.suggest() == sweep.suggest(DEFAULT_RULE) == pytest.approx(0.1, rel=0.05)
    assert sweep.suggest("tenth") == pytest.approx(0.01, rel=0.05)
    with pytest.raises(
        ValueError, match="there is no rule 'best'; the rules are basin, minimum, steepest, tenth"
    ):
        sweep.suggest("best")


# --- the picture


@pytest.mark.parametrize("hi", [1.0, 1e4])
def test_the_picture_is_a_png_of_its_own_making(
    small_corpus: Corpus, tmp_path: Path, hi: float
) -> None:
    sweep = lr_range_test(TINY, small_corpus, hi=hi, n_steps=100)

    path = plot_lr_sweep(sweep, tmp_path / "sweep.png")

    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert (
        plot_lr_sweep(sweep, tmp_path / "tenth.png", rule="tenth").read_bytes() != path.read_bytes()
    )


@pytest.mark.parametrize("chosen", [None, "tenth"])
def test_the_picture_names_each_rule_with_its_suggestion(
    small_corpus: Corpus, tmp_path: Path, chosen: str
) -> None:
    sweep = lr_range_test(TINY, small_corpus, n_steps=100)

    text = plot_lr_sweep(
        sweep, tmp_path / "sweep.svg", rule=chosen
    ).read_text()  # keeps each text as a comment

    for rule in RULES:
        if rule == (chosen or DEFAULT_RULE):
            assert f" {rule}: lr {sweep.suggest(rule):.3g}, exponent" in text
        else:
            assert f" {rule} {sweep.suggest(rule):.2g} " in text
