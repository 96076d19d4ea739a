"""Learning-rate range test: one optimizer step at each of many learning rates, lowest first.

The test is from Smith 2017 (Cyclical Learning Rates, section 3.3), in the form of the lecture: the
exponents rise linearly from -3 to 0, and the suggested learning rate is at the bottom of the valley
of the losses.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows
from makemore.dropout import seed_dropout
from makemore.errors import UserError
from makemore.model import MLP

WINDOW = 0.1  # standard deviation of the smoothing window, in powers of ten of the learning rate
MEMORY = 0.95  # decay of the running mean of the loss
STOP = 4.0  # the test stops when the running mean is more than this many times its lowest value
MIN_POINTS = 10  # fewer points do not show a curve


@dataclass(frozen=True)
class LrSweep:
    """Result of a range test.

    Attributes:
        config: of the model; its lr and schedule are not used.
        lrs: (S,) float64, the learning rate of each step, rising.
        losses: (S,) float64, the minibatch loss of each step in nats, before the step's update.
        stopped_at: the learning rate at which the loss grew too much or was not finite, which
            ended the test; None if the test was completed.
    """

    config: Config
    lrs: np.ndarray
    losses: np.ndarray
    stopped_at: float | None

    @cached_property
    def smoothed(self) -> np.ndarray:
        """(S,) float64: the losses, smoothed by a centred Gaussian window, which has no lag."""
        return smooth(np.log10(self.lrs), self.losses)

    def suggest(self, rule: str | None = None) -> float:
        """Return the learning rate that a rule suggests for the smoothed curve.

        Args:
            rule: a name in RULES. Default: DEFAULT_RULE.

        Raises:
            UserError: the rule does not exist.
        """
        rule = DEFAULT_RULE if rule is None else rule
        if rule not in RULES:
            raise UserError(f"unknown rule {rule!r}; use one of {', '.join(RULES)}.")
        return float(10 ** RULES[rule](np.log10(self.lrs), self.smoothed))

    @property
    def at_edge(self) -> bool:
        """Whether the lowest smoothed loss is in the outer 5% of the points.

        Then a wider range may have a lower loss.
        """
        lowest = int(np.argmin(self.smoothed))
        edge = len(self.lrs) // 20
        return lowest <= edge or lowest >= len(self.lrs) - 1 - edge


def lr_range_test(
    config: Config,
    corpus: Corpus,
    *,
    lo: float = 1e-3,
    hi: float = 1.0,
    n_steps: int = 1000,
    stop: float | None = STOP,
) -> LrSweep:
    """Train a fresh model for one step at each of `n_steps` learning rates and record the losses.

    The loss of a step is the minibatch loss before the update. The initial weights, the batches and
    the dropout are the same as in a training with this config. 1,000 steps of a model of the
    lecture's size take 0.3 s.

    Args:
        config: of the model and the optimizer; lr and schedule are not used.
        corpus: the data; only train is used.
        lo: the first and lowest learning rate.
        hi: the last and highest learning rate; all are evenly spaced on a log scale.
        n_steps: number of learning rates.
        stop: end the test when the running mean of the loss is more than this many times its
            lowest value so far. With None only a loss that is not finite ends it.

    Raises:
        UserError: the range or a number is invalid, or the loss blew up within the first
            MIN_POINTS steps.
    """
    _check(lo, hi, n_steps, stop)
    lrs = 10 ** np.linspace(math.log10(lo), math.log10(hi), n_steps)
    losses: list[float] = []
    running = 0.0
    lowest = math.inf
    stopped_at = None
    step = _make_step(MLP(config, len(corpus.vocab)), corpus)
    for i, lr in enumerate(lrs):
        loss = step(i, float(lr))
        if math.isfinite(loss):
            running = MEMORY * running + (1 - MEMORY) * loss
            mean = running / (1 - MEMORY ** (i + 1))  # corrects for the start at zero
            lowest = min(lowest, mean)
        if not math.isfinite(loss) or (stop is not None and mean > stop * lowest):
            stopped_at = float(lr)
            break
        losses.append(loss)

    if len(losses) < MIN_POINTS:
        raise UserError(
            f"the loss blew up at learning rate {stopped_at:.3g}, at step {len(losses)}; "
            "give a lower lo."
        )
    return LrSweep(config, lrs[: len(losses)], np.array(losses), stopped_at)


def _check(lo: float, hi: float, n_steps: int, stop: float | None) -> None:
    if not (0 < lo < hi <= 1e38):  # the weights are float32
        raise UserError(
            f"lo and hi must be learning rates with 0 < lo < hi <= 1e38, but got {lo=}, {hi=}."
        )
    if n_steps < MIN_POINTS:
        raise UserError(f"n_steps must be at least {MIN_POINTS}, but got {n_steps=}.")
    if stop is not None and not stop > 1:
        raise UserError(f"stop must be greater than 1, or None, but got {stop=}.")


def _make_step(model: MLP, corpus: Corpus) -> Callable[[int, float], float]:
    """Return a function that takes step i at a learning rate and returns the loss before it."""
    config = model.config
    dropout = seed_dropout(model, config.seed)
    model.train()
    parameters = list(model.parameters())
    adamw = None
    if config.optimizer == "adamw":
        adamw = torch.optim.AdamW(parameters, weight_decay=config.weight_decay)

    def step(i: int, lr: float) -> float:
        rows = batch_rows(config.seed, i, config.batch_size, len(corpus.train))
        X, Y = corpus.train.tensors(config.block_size, rows)
        dropout.start(i)
        loss = model.loss(X, Y)
        gradients = torch.autograd.grad(loss, parameters)
        if adamw is not None:
            for parameter, gradient in zip(parameters, gradients, strict=True):
                parameter.grad = gradient
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
        else:
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.mul_(1 - lr * config.weight_decay).sub_(gradient, alpha=lr)
        return loss.item()

    return step


def smooth(x: np.ndarray, y: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """Return the mean of y around each x, weighted by a Gaussian.

    Args:
        x: (S,).
        y: (S,).
        window: standard deviation of the Gaussian, in units of x.

    Returns:
        (S,).
    """
    weights = np.exp(-0.5 * ((x[:, None] - x) / window) ** 2)
    return weights @ y / weights.sum(axis=1)


# Rules suggest a learning rate for a curve. x (S,) is log10 of the learning rates and y (S,) the
# smoothed loss; the result is log10 of the suggestion. Slopes are by x.
#
# The regret of a rule is the dev loss after 5,000 steps at its suggestion, minus the lowest dev
# loss at 31 learning rates. This table shows the median / worst regret in nats of ten range tests
# on the embedded names. `python studies/lr_sweep.py --audit` measures it again.
#
#            3, 10, 200, 32, SGD   3, 2, 100, 32, SGD   8, 24, 200, 256, AdamW   mean of the medians
#   basin    0.026 / 0.050         0.074 / 0.105        -0.001 / 0.002           0.033
#   minimum  0.028 / 0.048         0.076 / 0.110        0.003 / 0.006            0.036
#   slide    0.052 / 0.074         0.115 / 0.147        0.012 / 0.030            0.060
#   valley   0.847 / 1.082         0.284 / 0.315        0.025 / 0.046            0.385
#   tenth    1.896 / 2.320         0.400 / 0.508        0.089 / 0.135            0.795
#   steepest 2.996 / 7.920         0.507 / 1.055        0.202 / 0.203            1.235
#
# A column is a model: block size, embedding, hidden units, batch size, optimizer. The default
# rule has the lowest mean of the medians. It is also the lecture's: the bottom of the valley.


def basin(x: np.ndarray, y: np.ndarray, tolerance: float = 0.1) -> float:
    """Middle of the range around the minimum with a loss within 10% of it, as in the lecture."""
    lowest = int(np.argmin(y))
    above = np.flatnonzero(y > (1 + tolerance) * y[lowest])
    left = above[above < lowest].max(initial=-1) + 1
    right = above[above > lowest].min(initial=len(y)) - 1
    return float(x[left] + x[right]) / 2


def minimum(x: np.ndarray, y: np.ndarray) -> float:
    """Learning rate of the lowest loss."""
    return float(x[np.argmin(y)])


def tenth(x: np.ndarray, y: np.ndarray) -> float:
    """A tenth of the learning rate of the lowest loss; may be below the range."""
    return minimum(x, y) - 1


def steepest(x: np.ndarray, y: np.ndarray) -> float:
    """Learning rate at which the loss falls fastest with log lr, left of the minimum."""
    return float(x[np.argmin(np.gradient(y, x)[: np.argmin(y) + 1])])


def valley(x: np.ndarray, y: np.ndarray) -> float:
    """Two thirds of the longest range over which the loss always falls."""
    rises = np.flatnonzero(np.diff(y) >= 0)
    starts = np.r_[0, rises + 1]
    ends = np.r_[rises, len(y) - 1]
    longest = int(np.argmax(ends - starts))
    return float(x[starts[longest] + 2 * (ends[longest] - starts[longest]) // 3])


def slide(x: np.ndarray, y: np.ndarray, share: float = 0.15) -> float:
    """Last point left of the minimum that has at least 15% of the steepest slope."""
    slope = np.gradient(y, x)[: np.argmin(y) + 1]
    if slope.min() >= 0:
        return minimum(x, y)
    steep = np.flatnonzero(slope <= share * slope.min())
    return float(x[steep.max(initial=0)])


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    rule.__name__: rule for rule in (basin, minimum, steepest, tenth, valley, slide)
}
DEFAULT_RULE = "basin"
