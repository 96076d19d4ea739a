"""Synthetic models for the tests of the page, and their probabilities in torch."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from experiments.page import make_page, pack_all
from makemore.checkpoint import Checkpoint
from makemore.config import Config
from makemore.data import Examples
from makemore.ensemble import Ensemble, Trained, predict
from makemore.kneser_ney import KneserNey
from makemore.model import MLP
from makemore.words import Vocab

LATIN = "abcdefghijklmnopqrstuvwxyz"
# A dot, letters of several scripts, one beyond 16 bits, a combining accent, a space, and
# characters that could end an HTML element.
UNICODE = ".ańωяжعب日本😀\u0301 </script>&\"'\\`${}\x01\u2028"
SOURCE = "made up <!-- <script>.safetensors"  # unescaped, it would break the page


def make_checkpoint(characters: str = LATIN, *, gain: float = 40.0, **fields: Any) -> Checkpoint:
    """Return a model whose probabilities are as uneven as a trained one's.

    Its weights are kaiming, with W2 and Wd multiplied by `gain`.
    """
    usual = {"block_size": 3, "n_embd": 10, "n_hidden": 100, "init": "kaiming", "dropout": 0.3}
    config = Config(**{**usual, **fields})
    vocab = Vocab(sorted(set(characters)))
    model = MLP(config, len(vocab))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in ("W2", "Wd"):
                parameter.mul_(gain)
    return Checkpoint(model, vocab, {"dev_loss": 2.25})


KINDS = {
    "the lecture's": lambda: make_checkpoint(init="lecture", gain=0.2),
    "one character of context": lambda: make_checkpoint(block_size=1, n_embd=1),
    "32 characters, direct": lambda: make_checkpoint(block_size=32, n_embd=5, direct=True),
    "many scripts": lambda: make_checkpoint(UNICODE, block_size=4),
}


def make_ensemble() -> Trained:
    """Return two networks of different block sizes, mixed with counts of some words."""
    members = [make_checkpoint(block_size=T, n_hidden=30, seed=T) for T in (2, 6)]
    vocab = members[0].vocab
    draw = random.Random(1)
    words = ["".join(draw.choices("aenmlirs", k=k % 9)) for k in range(2000)]
    counts = KneserNey.fit(Examples.of(words, vocab), len(vocab), context=4)
    models = tuple(member.model for member in members)
    ensemble = Ensemble(models, (0.25, 0.75), vocab, counts, 0.4, {"dev_loss": 2.25})
    return Trained(ensemble, vocab, ensemble.metadata)


def trained_of(checkpoint: Checkpoint | Trained) -> Trained:
    return Trained(checkpoint.model, checkpoint.vocab, checkpoint.metadata)


def page_of(checkpoint: Checkpoint | Trained) -> str:
    trained = trained_of(checkpoint)
    return make_page(SOURCE, trained, pack_all(trained))


def some_prefixes(vocab: Vocab) -> list[str]:
    """Return a hundred prefixes of 0 to 40 characters."""
    draw = random.Random(0)
    return ["".join(draw.choices(vocab.symbols[1:], k=k % 41)) for k in range(100)]


def probabilities(checkpoint: Checkpoint | Trained, prefixes: list[str]) -> np.ndarray:
    """Return the next-character probabilities of torch, (len(prefixes), V)."""
    T = checkpoint.model.block_size
    rows = [([0] * T + checkpoint.vocab.encode(prefix))[-T:] for prefix in prefixes]
    return predict(checkpoint.model, torch.tensor(rows))
