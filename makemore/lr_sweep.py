"""The learning-rate range test: one optimizer step at each of a range of learning rates, and what the losses suggest.

Smith 2017 (Cyclical Learning Rates, section 3.3), as the lecture does it: exponents on a line from -3 to 0, and the
learning rate read off the bottom of the valley.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from makemore.config import Config
from makemore.data import Corpus
from makemore.draws import batch_rows, dropout_keep
from makemore.errors import UserError
from makemore.model import MLP

if TYPE_CHECKING:
    from matplotlib.axes import Axes

WINDOW = 0.1  # standard deviation of the smoothing window, in powers of ten of the learning rate
MEMORY = 0.95  # of the running mean that decides on stopping
STOP = 4.0  # times its lowest: where the running mean ends the test
MIN_POINTS = 10  # fewer say nothing about a curve


@dataclass(frozen=True)
class LrSweep:
    """What a range test recorded, up to where it stopped.

    Attributes:
        config: of the model; its lr and schedule played no part.
        lrs: (S,) float64, the learning rate of each step, rising.
        losses: (S,) float64, each step's minibatch loss in nats, before the update that it led to.
        stopped_at: the learning rate at which the test stopped because the loss had grown too far or was not finite;
            None when it ran to the end.
    """

    config: Config
    lrs: np.ndarray
    losses: np.ndarray
    stopped_at: float | None

    @cached_property
    def smoothed(self) -> np.ndarray:
        """(S,) float64: the losses under a centred Gaussian window of WINDOW powers of ten, which has no lag."""
        return smooth(np.log10(self.lrs), self.losses)

    def suggest(self, rule: str | None = None) -> float:
        """The learning rate that a rule of RULES (by default DEFAULT_RULE) reads off the smoothed curve.

        Raises:
            UserError: there is no such rule; the sentence names those that exist.
        """
        rule = DEFAULT_RULE if rule is None else rule
        if rule not in RULES:
            raise UserError(f"there is no rule {rule!r}; the rules are {', '.join(RULES)}.")
        return float(10 ** RULES[rule](np.log10(self.lrs), self.smoothed))

    @property
    def at_edge(self) -> bool:
        """Whether the lowest smoothed loss lies in the outer 5% of the points: a wider range may have a lower one."""
        lowest, edge = int(np.argmin(self.smoothed)), len(self.lrs) // 20
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
    """Train a fresh model for one step at each of `n_steps` learning rates, and record each step's loss.

    A step's loss is that of the minibatch whose gradient it takes, before the step. The initial weights, the batches
    and the dropout are those that training with this config draws. 1,000 steps of the lecture's size take 0.3 s.

    Args:
        lo, hi: the first and the last learning rate; those between lie evenly on a log scale.
        stop: stop when a running mean of the loss is more than this many times its lowest so far; None never stops
            but for a loss that is not finite.

    Raises:
        UserError: the range or a number is senseless, or the loss blew up within the first MIN_POINTS steps.
    """
    _check(lo, hi, n_steps, stop)
    lrs = 10 ** np.linspace(math.log10(lo), math.log10(hi), n_steps)
    losses: list[float] = []
    running, lowest, stopped_at = 0.0, math.inf, None
    model = MLP(config, len(corpus.vocab))
    step = _stepper(model, corpus)
    for i, lr in enumerate(lrs):
        loss = step(i, float(lr))
        if math.isfinite(loss):
            running = MEMORY * running + (1 - MEMORY) * loss
            mean = running / (1 - MEMORY ** (i + 1))  # without the zero that it started from
            lowest = min(lowest, mean)
        if not math.isfinite(loss) or (stop is not None and mean > stop * lowest):
            stopped_at = float(lr)
            break
        losses.append(loss)
    if len(losses) < MIN_POINTS:
        raise UserError(
            f"the loss blew up at learning rate {stopped_at:.3g}, at step {len(losses)}; give a lower lo."
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


def _stepper(model: MLP, corpus: Corpus) -> Callable[[int, float], float]:
    """A function that takes step i at a learning rate, and returns the minibatch loss before it."""
    config, parameters = model.config, list(model.parameters())
    adamw = (
        torch.optim.AdamW(parameters, weight_decay=config.weight_decay)
        if config.optimizer == "adamw"
        else None
    )

    def step(i: int, lr: float) -> float:
        rows = batch_rows(config.seed, i, config.batch_size, len(corpus.train))
        X, Y = corpus.train.tensors(config.block_size, rows)
        keep = None
        if config.dropout > 0:
            shape = (config.batch_size, config.n_hidden)
            keep = torch.from_numpy(dropout_keep(config.seed, i, shape, config.dropout))
        loss = model.loss(X, Y, keep)
        gradients = torch.autograd.grad(loss, parameters)
        for parameter, gradient in zip(parameters, gradients, strict=True):
            parameter.grad = gradient
        if adamw is not None:
            adamw.param_groups[0]["lr"] = lr
            adamw.step()
        else:
            with torch.no_grad():
                for parameter, gradient in zip(parameters, gradients, strict=True):
                    parameter.mul_(1 - lr * config.weight_decay).sub_(gradient, alpha=lr)
        return loss.item()

    return step


def smooth(x: np.ndarray, y: np.ndarray, window: float = WINDOW) -> np.ndarray:
    """The mean of y (S,) around each x (S,), weighted by a Gaussian of standard deviation `window`; shape (S,)."""
    weights = np.exp(-0.5 * ((x[:, None] - x) / window) ** 2)
    return weights @ y / weights.sum(axis=1)


# The rules read a suggestion off the curve: x (S,) is log10 of the learning rates, y (S,) the smoothed loss, and the
# result is log10 of the suggestion; slopes are by x. What a rule costs is its regret: dev loss after 5,000 steps at its
# suggestion, above the lowest of 31 learning rates. Median / worst in nats over ten range tests on the embedded names,
# by `python studies/lr_sweep.py --audit`, which measures it again:
#
#            3, 10, 200, 32, SGD   3, 2, 100, 32, SGD   8, 24, 200, 256, AdamW   mean of the medians
#   basin    0.026 / 0.050         0.074 / 0.105        -0.001 / 0.002           0.033
#   minimum  0.028 / 0.048         0.076 / 0.110        0.003 / 0.006            0.036
#   slide    0.052 / 0.074         0.115 / 0.147        0.012 / 0.030            0.060
#   valley   0.847 / 1.082         0.284 / 0.315        0.025 / 0.046            0.385
#   tenth    1.896 / 2.320         0.400 / 0.508        0.089 / 0.135            0.795
#   steepest 2.996 / 7.920         0.507 / 1.055        0.202 / 0.203            1.235
#
# The columns are block size, embedding, hidden and batch size. The default is the rule with the least regret, by the
# mean over the models of the median; it is also the lecture's reading, off the bottom of the valley.


def basin(x: np.ndarray, y: np.ndarray, tolerance: float = 0.1) -> float:
    """The middle of the stretch around the minimum where the loss is within 10% of it: the lecture's reading."""
    lowest = int(np.argmin(y))
    above = np.flatnonzero(y > (1 + tolerance) * y[lowest])
    left = above[above < lowest].max(initial=-1) + 1
    right = above[above > lowest].min(initial=len(y)) - 1
    return float(x[left] + x[right]) / 2


def minimum(x: np.ndarray, y: np.ndarray) -> float:
    """Where the loss is lowest."""
    return float(x[np.argmin(y)])


def tenth(x: np.ndarray, y: np.ndarray) -> float:
    """A tenth of the learning rate where the loss is lowest; may lie below the range."""
    return minimum(x, y) - 1


def steepest(x: np.ndarray, y: np.ndarray) -> float:
    """Where the loss falls fastest with log lr, left of the minimum."""
    return float(x[np.argmin(np.gradient(y, x)[: np.argmin(y) + 1])])


def valley(x: np.ndarray, y: np.ndarray) -> float:
    """Two thirds into the longest stretch over which the loss falls without a break."""
    rises = np.flatnonzero(np.diff(y) >= 0)
    starts, ends = np.r_[0, rises + 1], np.r_[rises, len(y) - 1]
    longest = int(np.argmax(ends - starts))
    return float(x[starts[longest] + 2 * (ends[longest] - starts[longest]) // 3])


def slide(x: np.ndarray, y: np.ndarray, share: float = 0.15) -> float:
    """Where the slide into the minimum ends: the last point left of it with 15% of the steepest slope."""
    slope = np.gradient(y, x)[: np.argmin(y) + 1]
    return (
        float(x[np.flatnonzero(slope <= share * slope.min()).max(initial=0)])
        if slope.min() < 0
        else minimum(x, y)
    )


RULES: dict[str, Callable[[np.ndarray, np.ndarray], float]] = {
    rule.__name__: rule for rule in (basin, minimum, steepest, tenth, valley, slide)
}
DEFAULT_RULE = "basin"


def plot_lr_sweep(sweep: LrSweep, path: Path | str, rule: str | None = None) -> Path:
    """Draw loss against learning rate, as the lecture does, with all suggestions, a rule's in red; returns the path.

    Raises:
        UserError: as `LrSweep.suggest`, and for a file name whose format matplotlib lacks.
    """
    from matplotlib.figure import Figure  # takes 0.3 s to import, and only the picture needs it

    sweep.suggest(rule)  # refuses an unknown rule
    figure = Figure(figsize=(8, 5.6), layout="constrained")
    ax = figure.subplots()
    ax.plot(
        sweep.lrs,
        sweep.losses,
        ".",
        ms=4,
        alpha=0.4,
        mew=0,
        color="tab:blue",
        label="minibatch loss",
    )
    ax.plot(
        sweep.lrs,
        sweep.smoothed,
        lw=2,
        color="tab:blue",
        label=f"smoothed over {WINDOW} powers of ten",
    )
    if sweep.stopped_at is not None:
        ax.axvline(
            sweep.stopped_at,
            color="black",
            ls=":",
            label=f"stopped: the loss grew at lr {sweep.stopped_at:.3g}",
        )
    ax.set_xscale("log")
    _mark_suggestions(ax, sweep, DEFAULT_RULE if rule is None else rule)
    exponents = (
        np.arange(math.ceil(2 * math.log10(sweep.lrs[0])), 2 * math.log10(sweep.lrs[-1]) + 1e-9) / 2
    )
    ax.set_xticks(10**exponents, [f"{10**e:.2g}\n{e:g}" for e in exponents])
    ax.set_xticks([], minor=True)
    # What lies left of the minimum decides the height, so that a loss that blew up does not flatten the valley.
    ax.set_ylim(
        0, min(sweep.losses.max(), 1.5 * sweep.losses[: np.argmin(sweep.smoothed) + 1].max()) * 1.05
    )
    ax.set(
        xlabel="learning rate, and its exponent of ten",
        ylabel="loss of the step's minibatch (nats per character)",
    )
    c = sweep.config
    sizes = f"block {c.block_size}, embedding {c.n_embd}, hidden {c.n_hidden}, batch {c.batch_size}, init {c.init}"
    figure.suptitle(f"One {c.optimizer} step a learning rate: {sizes}", fontsize="medium")
    ax.legend()
    figure.savefig(path, dpi=120)
    return Path(path)


def _mark_suggestions(ax: Axes, sweep: LrSweep, chosen: str) -> None:
    """A line for each rule's suggestion, the chosen one's thick and red, each named above the axes.

    The names go down in steps from left to right, so that no line crosses a name however close the suggestions are.
    """
    lrs = sorted((sweep.suggest(rule), rule) for rule in RULES)
    for row, (lr, rule) in enumerate(reversed(lrs)):
        main, top = rule == chosen, 1.025 + 0.045 * row
        color = "tab:red" if main else "dimgray"
        across = ax.get_xaxis_transform()  # x in learning rates, y in heights of the axes
        ax.plot(
            [lr, lr],
            [0, top],
            color=color,
            lw=1.8 if main else 0.7,
            transform=across,
            clip_on=False,
            zorder=3,
        )
        text = (
            f" {rule}: lr {lr:.3g}, exponent {math.log10(lr):.2f}" if main else f" {rule} {lr:.2g}"
        )
        weight = "bold" if main else "normal"
        ax.text(
            lr, top, text, color=color, weight=weight, size="small", va="center", transform=across
        )
