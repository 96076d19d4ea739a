"""The learning rate of each step, and what its weights count in their running average."""

from __future__ import annotations

import numpy as np

from makemore.config import Config

WARMUP = 0.05  # share of max_steps that the cosine schedule rises over


def lr_at(config: Config, steps: np.ndarray) -> np.ndarray:
    """Learning rates (S,) float32 of steps (S,), counted from 0.

    constant: lr. step: lr, then lr / 10 from half of max_steps (the lecture's). cosine: a linear rise over the first 5%
    of max_steps, then half a cosine down to 0 (Loshchilov & Hutter 2017, eq. 5, one period).
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
    """Weights (S,) float32 of the parameters after steps (S,), counted from 0, in their running average.

    1 / (ema * step + 1): the average of the first steps is their mean, and later it forgets what lies further back than
    a share `ema` of the steps done, so that it suits a short training and a long one. 1 keeps the mean of all (Polyak
    & Juditsky 1992), 0 the last alone. A power-function average as in Karras et al. 2024 (arXiv:2312.02696, eq. 4).
    """
    return (1 / (config.ema * np.asarray(steps, np.float64) + 1)).astype(np.float32)
