"""Learning rate of each step, and weight of each step in the running average of the weights."""

from __future__ import annotations

import numpy as np

from makemore.config import Config

WARMUP = 0.05  # share of max_steps in which the cosine schedule rises


def lr_at(config: Config, steps: np.ndarray) -> np.ndarray:
    """Return the learning rates of some steps.

    - constant: lr.
    - step: lr, then lr / 10 from half of max_steps, as in the lecture.
    - cosine: a linear rise over the first 5% of max_steps, then half a cosine down to 0
      (Loshchilov & Hutter 2017, eq. 5, one period).

    Args:
        config: the schedule, lr and max_steps.
        steps: (S,) steps, counted from 0.

    Returns:
        (S,) float32.
    """
    steps = np.asarray(steps, np.float64)
    if config.schedule == "constant":
        factor = np.ones_like(steps)
    elif config.schedule == "step":
        factor = np.where(2 * steps < config.max_steps, 1.0, 0.1)
    else:
        warmup = max(1, round(WARMUP * config.max_steps))
        progress = np.clip((steps - warmup) / max(1, config.max_steps - warmup), 0, 1)
        factor = np.minimum((steps + 1) / warmup, 0.5 * (1 + np.cos(np.pi * progress)))
    return (config.lr * factor).astype(np.float32)


def averaging_at(config: Config, steps: np.ndarray) -> np.ndarray:
    """Return the weight of the parameters after some steps in their running average.

    The weight is 1 / (ema * step + 1). The average of the first steps is their mean. Later it
    forgets parameters that are older than a share `ema` of the steps done, so it suits short and
    long trainings. With ema = 1 it is the mean of all steps (Polyak & Juditsky 1992), with ema = 0
    the last step alone. It is a power-function average as in Karras et al. 2024
    (arXiv:2312.02696, eq. 4).

    Args:
        config: ema.
        steps: (S,) steps, counted from 0.

    Returns:
        (S,) float32.
    """
    return (1 / (config.ema * np.asarray(steps, np.float64) + 1)).astype(np.float32)
