"""Made-up models for the page of names, and what torch says of them."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch

from experiments.page import contexts, make_page, pack
from makemore.checkpoint import Checkpoint
from makemore.config import Config
from makemore.model import MLP
from makemore.words import Vocab

LATIN = "abcdefghijklmnopqrstuvwxyz"
# A dot, letters of several scripts, one beyond 16 bits, a combining accent, a space, and what could end an element of HTML.
UNICODE = ".ańωяжعب日本😀\u0301 </script>&\"'\\`${}\x01\u2028"
SOURCE = "made up <!-- <script>.safetensors"  # would swallow the rest of the page if it stood there as it is


def make_checkpoint(characters: str = LATIN, *, gain: float = 40.0, **fields: Any) -> Checkpoint:
    """A model that is as sure of what follows as a trained one: kaiming weights, W2 and Wd larger by `gain`."""
    config = Config(
        **{
            "block_size": 3,
            "n_embd": 10,
            "n_hidden": 100,
            "init": "kaiming",
            "dropout": 0.3,
            **fields,
        }
    )
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


def page_of(checkpoint: Checkpoint) -> str:
    return make_page(SOURCE, checkpoint, pack(checkpoint.model, contexts(checkpoint)))


def some_prefixes(vocab: Vocab) -> list[str]:
    """A hundred, from none to forty characters."""
    draw = random.Random(0)
    return ["".join(draw.choices(vocab.symbols[1:], k=k % 41)) for k in range(100)]


@torch.no_grad()
def probabilities(checkpoint: Checkpoint, prefixes: list[str]) -> np.ndarray:
    """(len(prefixes), V) what torch says follows."""
    T = checkpoint.model.config.block_size
    rows = [([0] * T + checkpoint.vocab.encode(prefix))[-T:] for prefix in prefixes]
    return checkpoint.model(torch.tensor(rows)).double().softmax(1).numpy()
