"""Search the MLP with batch normalisation of lecture 3: learning rate, width, momentum."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

from dataclasses import dataclass

import torch
from optuna import Trial
from torch import Tensor, nn

from makemore.config import Config
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import run_script


class BatchNormConfig(Config):
    """Config with the field of the batch normalisation."""

    momentum: float = 0.001
    """Weight of a batch in the running mean and variance."""


class BatchNormMLP(nn.Module):
    """Embedding, linear layer without bias, batch normalisation, tanh, logits."""

    config_class = BatchNormConfig

    def __init__(self, config: BatchNormConfig, vocab_size: int) -> None:
        super().__init__()
        fan_in = config.block_size * config.n_embd
        self.embed = nn.Embedding(vocab_size, config.n_embd)
        self.linear = nn.Linear(fan_in, config.n_hidden, bias=False)
        self.norm = nn.BatchNorm1d(config.n_hidden, momentum=config.momentum)
        self.logits = nn.Linear(config.n_hidden, vocab_size)
        with torch.no_grad():
            self.linear.weight.normal_().mul_((5 / 3) / fan_in**0.5)  # the gain of tanh
            self.logits.weight.normal_().mul_(0.01)
            self.logits.bias.zero_()

    def forward(self, contexts: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, T) int64."""
        x = self.embed(contexts).flatten(1)  # (B, T*E)
        h = torch.tanh(self.norm(self.linear(x)))  # (B, H)
        return self.logits(h)


def space(trial: Trial, base: BatchNormConfig) -> BatchNormConfig:
    """Suggest the searched fields."""
    return base.replace(
        lr=trial.suggest_float("lr", 1e-2, 1.0, log=True),
        n_hidden=trial.suggest_int("n_hidden", 50, 300, step=50),
        momentum=trial.suggest_float("momentum", 1e-3, 1e-1, log=True),
    )


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Search lr, n_hidden and momentum of an MLP with batch normalisation."""

    trials: int = 16
    steps: int = 5000


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    from studies.harness.search.launch import run_study

    return run_study(args, space, BatchNormConfig(ema=0.1), model=BatchNormMLP)


if __name__ == "__main__":
    run_script(Args, main)
