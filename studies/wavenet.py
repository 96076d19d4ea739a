"""Search the hierarchical network of lecture 5, after WaveNet: learning rate, embedding, width."""

from __future__ import annotations

import makemore.interrupt  # noqa: F401 (Ctrl-C during the other imports)

from dataclasses import dataclass
from itertools import pairwise

import torch
from optuna import Trial
from torch import Tensor, nn

from makemore.config import Config
from makemore.errors import UserError
from studies.harness.cli.args import StudyArgs
from studies.harness.cli.script import run_script


class WaveConfig(Config):
    """Config with the depth; block_size must be 2 ** n_layers."""

    n_layers: int = 3
    """Number of layers, each of which halves the length."""


class WaveNet(nn.Module):
    """Embedding; layers that join pairs of neighbours, 8 to 4 to 2 to 1 positions; logits."""

    config_class = WaveConfig

    def __init__(self, config: WaveConfig, vocab_size: int) -> None:
        super().__init__()
        if config.block_size != 2**config.n_layers:
            raise UserError("block_size must be 2 ** n_layers; change one of them.")
        sizes = [config.n_embd] + [config.n_hidden] * config.n_layers
        self.embed = nn.Embedding(vocab_size, config.n_embd)
        self.linears = nn.ModuleList(nn.Linear(2 * n, m, bias=False) for n, m in pairwise(sizes))
        self.norms = nn.ModuleList(nn.BatchNorm1d(m) for m in sizes[1:])
        self.logits = nn.Linear(config.n_hidden, vocab_size)
        for linear in self.linears:
            nn.init.kaiming_normal_(linear.get_parameter("weight"), nonlinearity="linear")
        nn.init.normal_(self.logits.weight, std=0.1 / config.n_hidden**0.5)  # loss near ln V

    def forward(self, contexts: Tensor) -> Tensor:
        """Return the logits (B, V) for contexts (B, T) int64."""
        x = self.embed(contexts)  # (B, T, C)
        for linear, norm in zip(self.linears, self.norms, strict=True):
            x = linear(x.unflatten(1, (-1, 2)).flatten(2))  # (B, T/2, H)
            x = torch.tanh(norm(x.transpose(1, 2)).transpose(1, 2))
        return self.logits(x.flatten(1))


def space(trial: Trial, base: WaveConfig) -> WaveConfig:
    """Suggest the searched fields."""
    return base.replace(
        lr=trial.suggest_float("lr", 1e-2, 1.0, log=True),
        n_embd=trial.suggest_int("n_embd", 8, 32, step=8),
        n_hidden=trial.suggest_int("n_hidden", 32, 128, step=32),
    )


@dataclass(kw_only=True)
class Args(StudyArgs):
    """Search lr, n_embd and n_hidden of a hierarchical network."""

    trials: int = 16
    steps: int = 5000


def main(args: Args) -> int:
    """Run the study. Returns the exit code."""
    from studies.harness.search.launch import run_study

    return run_study(args, space, WaveConfig(block_size=8, ema=0.1), model=WaveNet)


if __name__ == "__main__":
    run_script(Args, main)
