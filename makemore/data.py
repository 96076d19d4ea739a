"""Words, vocabulary, split, and the examples that a context window makes of them."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from makemore.config import MAX_BLOCK_SIZE
from makemore.errors import UserError
from makemore.words import NAMES, Vocab, parse_words, read_bytes, split_words


class Distinct(NamedTuple):
    """The M different contexts of a split, and the P different (context, target) pairs.

    Attributes:
        positions: (M,) int32, one position in the stream for each context.
        offsets: (M + 1,) int32; the pairs of context m are offsets[m] ... offsets[m + 1] - 1.
        targets: (P,) in the stream's dtype.
        counts: (P,) int32, how often the pair stands in the split; they sum to N.
    """

    positions: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Examples:
    """Next-character examples as windows of one symbol stream; no context is ever copied.

    Each word stands in the stream behind MAX_BLOCK_SIZE boundary symbols, so the context of any block size T up to that
    is `stream[p - T : p]` and its target `stream[p]`, for each position p.

    Attributes:
        stream: (S,) uint8, or uint16 when the vocabulary has more than 256 symbols.
        positions: (N,) int32, where each example's target stands in the stream.
    """

    stream: np.ndarray
    positions: np.ndarray
    _distinct: dict[int, Distinct] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, words: Sequence[str], vocab: Vocab) -> Examples:
        """Encode words; vectorised, about 10 ms for 30,000 words.

        Raises:
            UserError: a word holds a character that `vocab` lacks.
        """
        lengths = np.fromiter((len(word) for word in words), np.int64, len(words))
        letters = _encode_letters("".join(words), vocab)
        starts = (
            np.cumsum(lengths + MAX_BLOCK_SIZE) - lengths
        )  # where each word's first letter stands
        stream = np.zeros(int(lengths.sum()) + MAX_BLOCK_SIZE * (len(words) + 1), letters.dtype)
        first = np.cumsum(lengths) - lengths
        # A letter's place is its place among all letters, shifted by its word's start.
        stream[np.arange(len(letters)) + np.repeat(starts - first, lengths)] = letters
        first_example = np.cumsum(lengths + 1) - (lengths + 1)
        positions = np.arange(int((lengths + 1).sum())) + np.repeat(
            starts - first_example, lengths + 1
        )
        return cls(stream, positions.astype(np.int32))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def targets(self) -> np.ndarray:
        """(N,) in the stream's dtype."""
        return self.stream[self.positions]

    def contexts(self, block_size: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """(n, block_size) in the stream's dtype: the contexts of some rows, by default all of them."""
        windows = np.lib.stride_tricks.sliding_window_view(self.stream, block_size)
        return windows[self.positions[rows] - block_size]

    def tensors(
        self, block_size: int, rows: np.ndarray | slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """X (n, block_size) int64 and Y (n,) int64."""
        X, Y = self.contexts(block_size, rows), self.targets[rows]
        return torch.from_numpy(X.astype(np.int64)), torch.from_numpy(Y.astype(np.int64))

    def distinct(self, block_size: int) -> Distinct:
        """The different contexts of the split, each with its targets and how often each follows; made once.

        Names repeat themselves: at block size 3 the lecture's 22,655 dev examples hold 2,965 different contexts, and an
        exact mean over the split needs no more forward passes than that.
        """
        if block_size not in self._distinct:
            rows = np.empty(
                (len(self), block_size + 1), ">u2"
            )  # big-endian, so that bytes sort as numbers
            rows[:, :-1], rows[:, -1] = self.contexts(block_size), self.targets
            _, first, counts = np.unique(
                rows.view(f"V{rows.strides[0]}").ravel(), return_index=True, return_counts=True
            )
            pairs = rows[first]  # each (context, target) once, in the order of contexts
            new = np.r_[True, np.any(pairs[1:, :-1] != pairs[:-1, :-1], axis=1)]
            offsets = np.r_[np.flatnonzero(new), len(pairs)].astype(np.int32)
            targets = np.ascontiguousarray(self.targets[first])
            self._distinct[block_size] = Distinct(
                self.positions[first[new]], offsets, targets, counts.astype(np.int32)
            )
        return self._distinct[block_size]


def _encode_letters(text: str, vocab: Vocab) -> np.ndarray:
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.zeros(int(points.max(initial=0)) + 1, np.uint16)
    for code, symbol in enumerate(vocab.symbols):
        if ord(symbol) < len(table):
            table[ord(symbol)] = code
    letters = table[points]
    unknown = np.flatnonzero(letters == 0)
    if len(unknown):
        raise UserError(
            f"character {text[unknown[0]]!r} is not one of the symbols {''.join(vocab.symbols)!r}."
        )
    return letters.astype(np.uint8) if len(vocab) <= 256 else letters


def build_dataset(
    words: Sequence[str], vocab: Vocab, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slide a context window over each word to make next-character examples.

    A word starts from `block_size` boundary symbols and ends by predicting one, so L letters give L + 1 examples.

    Args:
        words: words without the boundary character.
        block_size: context length in characters, 1 to MAX_BLOCK_SIZE.

    Returns:
        X (N, block_size) int64 and Y (N,) int64, N = sum(len(w) + 1).

    Raises:
        UserError: a word holds a character that `vocab` lacks, or the block size is out of range.
    """
    if not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise UserError(
            f"block_size must be between 1 and {MAX_BLOCK_SIZE}, but got {block_size=}."
        )
    return Examples.of(words, vocab).tensors(block_size)


def format_examples(words: Sequence[str], vocab: Vocab, block_size: int) -> Iterator[str]:
    """Lines as the lecture prints them: each word, then its examples (`..e ------> m`)."""
    for word in words:
        yield word
        for x, y in zip(*build_dataset([word], vocab, block_size), strict=True):
            yield f"{vocab.decode(x.tolist())} ------> {vocab.decode([int(y)])}"


@dataclass(frozen=True)
class Corpus:
    """What training may see: the train and dev examples of one file of words, and no test.

    Attributes:
        sha256: of the file's bytes, in hex.
        source: the file's name, for display.
    """

    vocab: Vocab
    train: Examples
    dev: Examples
    sha256: str
    source: str

    @cached_property
    def n_words(self) -> tuple[int, int]:
        """Words in train and in dev (every word's last example predicts the boundary)."""
        return int((self.train.targets == 0).sum()), int((self.dev.targets == 0).sum())


def load_corpus(path: Path | str | None = None) -> Corpus:
    """Read, split and encode a file of words; without a path, the embedded names.

    Raises:
        UserError: as `read_words` and `split_words`.
    """
    raw = read_bytes(path)
    path = Path(NAMES if path is None else path)
    words = parse_words(raw, path)
    if len(words) < 10:
        raise UserError(
            f"{path}: {len(words)} words are too few to split in three; at least 10 are needed."
        )
    vocab, split = Vocab.of(words), split_words(words)
    sha256 = hashlib.sha256(raw).hexdigest()
    return Corpus(
        vocab, Examples.of(split.train, vocab), Examples.of(split.dev, vocab), sha256, path.name
    )
