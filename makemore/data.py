"""Examples for next-character prediction: context windows over the words of a corpus."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from makemore.config import MAX_BLOCK_SIZE
from makemore.errors import UserError
from makemore.windows import number_windows, rank
from makemore.words import NAMES, Vocab, parse_words, read_bytes, split_words

if TYPE_CHECKING:
    import torch

    from makemore.teacher import Teacher

MAX_STREAM = 2**31 - 1  # symbols of a split, because positions are int32


class Distinct(NamedTuple):
    """The M different contexts of a split, and the P different (context, target) pairs.

    Attributes:
        positions: (M,) int32, one position in the stream for each context.
        offsets: (M + 1,) int32; context m has the pairs offsets[m] ... offsets[m + 1] - 1.
        targets: (P,) in the stream's dtype.
        counts: (P,) int32, the number of examples of each pair; they sum to N.
    """

    positions: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray
    counts: np.ndarray


@dataclass(frozen=True)
class Examples:
    """Next-character examples as windows of one symbol stream; contexts are never copied.

    In the stream, MAX_BLOCK_SIZE boundary symbols come before each word. So for any block size T
    up to that and each position p, the context is `stream[p - T : p]` and the target `stream[p]`.

    Attributes:
        stream: (S,) uint8, or uint16 if the vocabulary has more than 256 symbols.
        positions: (N,) int32, the position in the stream of each example's target.
    """

    stream: np.ndarray
    positions: np.ndarray
    _distinct: dict[int, Distinct] = field(default_factory=dict, repr=False, compare=False)
    _context_of: dict[int, np.ndarray] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, words: Sequence[str], vocab: Vocab) -> Examples:
        """Encode words. This is vectorised and takes about 10 ms for 30,000 words.

        Raises:
            UserError: a word holds a character that is not in the vocabulary, or the words are too
                many.
        """
        lengths = np.fromiter((len(word) for word in words), np.int64, len(words))
        # Position in the stream of each word's first letter.
        starts = np.cumsum(lengths + MAX_BLOCK_SIZE) - lengths
        size = int(lengths.sum()) + MAX_BLOCK_SIZE * (len(words) + 1)
        if size > MAX_STREAM:
            raise UserError(
                f"{len(words):,} words are too many: they take {size:,} symbols with "
                f"{MAX_BLOCK_SIZE} boundaries before each, and the most is {MAX_STREAM:,}; "
                "give a shorter file."
            )

        letters = _encode_letters("".join(words), vocab)
        stream = np.zeros(size, letters.dtype)
        stream[_word_positions(starts, lengths)] = letters

        # A word's targets are its letters and the boundary after them.
        return cls(stream, _word_positions(starts, lengths + 1))

    def __len__(self) -> int:
        return len(self.positions)

    @property
    def targets(self) -> np.ndarray:
        """(N,) in the stream's dtype."""
        return self.stream[self.positions]

    @cached_property
    def stream_uint16(self) -> np.ndarray:
        """(S,) the stream as uint16, the only symbol type of the CPU kernel; one copy for all."""
        return self.stream.astype(np.uint16, copy=False)

    def contexts(self, block_size: int, rows: np.ndarray | slice = slice(None)) -> np.ndarray:
        """Return the contexts of some rows: (n, block_size) in the stream's dtype.

        Args:
            block_size: context length in characters, 1 to MAX_BLOCK_SIZE.
            rows: (n,) indices of examples, or a slice; all examples by default.
        """
        return self.windows(block_size, self.positions[rows])

    def windows(self, block_size: int, positions: np.ndarray) -> np.ndarray:
        """Return the contexts that end before some positions in the stream, as `contexts`."""
        windows = np.lib.stride_tricks.sliding_window_view(self.stream, block_size)
        return windows[positions - block_size]

    def tensors(
        self, block_size: int, rows: np.ndarray | slice = slice(None)
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return X (n, block_size) int64 and Y (n,) int64 of some rows, as `contexts`."""
        import torch  # slow to import, and only tensors need it

        X = self.contexts(block_size, rows)  # (n, T)
        Y = self.stream[self.positions[rows]]  # (n,); `targets` would gather those of all rows
        return torch.from_numpy(X.astype(np.int64)), torch.from_numpy(Y.astype(np.int64))

    def distinct(self, block_size: int) -> Distinct:
        """Return the different contexts with the counts of their targets; computed once.

        Contexts of names repeat: at block size 3 the lecture's 22,655 dev examples have 2,965
        different contexts. An exact mean over the split needs one forward pass for each.
        """
        if block_size not in self._distinct:
            self._distinct[block_size] = self._find_distinct(block_size)
        return self._distinct[block_size]

    def context_of(self, block_size: int) -> np.ndarray:
        """Return (N,) int64, each example's context as its index in `distinct`; computed once."""
        if block_size not in self._context_of:
            numbers, bound = number_windows(self.stream, self.positions, -block_size, 0)
            self._context_of[block_size], _ = rank(numbers, bound)
        return self._context_of[block_size]

    def _find_distinct(self, block_size: int) -> Distinct:
        keys, _ = number_windows(self.stream, self.positions, -block_size, 1)
        _, first, counts = np.unique(keys, return_index=True, return_counts=True)

        # (P,) each (context, target) once, sorted by context
        positions = self.positions[first]
        contexts, _ = number_windows(self.stream, positions, -block_size, 0)
        is_new = np.r_[True, contexts[1:] != contexts[:-1]]
        return Distinct(
            positions=positions[is_new],
            offsets=np.r_[np.flatnonzero(is_new), len(positions)].astype(np.int32),
            targets=self.stream[positions],
            counts=counts.astype(np.int32),
        )


def _word_positions(starts: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Return starts[0], starts[0] + 1, ... for lengths[0] positions, then the same for each word.

    Args:
        starts: (W,) int64.
        lengths: (W,) int64.

    Returns:
        (sum of lengths,) int32.
    """
    first = np.cumsum(lengths) - lengths  # index in the result of each word's first position
    positions = np.repeat((starts - first).astype(np.int32), lengths)
    positions += np.arange(len(positions), dtype=np.int32)
    return positions


def _encode_letters(text: str, vocab: Vocab) -> np.ndarray:
    """Return the codes of a text without boundaries: uint8, or uint16 for a large vocabulary."""
    points = np.frombuffer(text.encode("utf-32-le"), np.uint32)
    table = np.zeros(int(points.max(initial=0)) + 1, np.uint16)
    for code, symbol in enumerate(vocab.symbols):
        if ord(symbol) < len(table):
            table[ord(symbol)] = code

    letters = table[points]
    unknown = np.flatnonzero(letters == 0)
    if len(unknown):
        known = "".join(vocab.symbols[1:])
        raise UserError(f"character {text[unknown[0]]!r} is not one of the symbols {known!r}.")
    return letters.astype(np.uint8) if len(vocab) <= 256 else letters


def build_dataset(
    words: Sequence[str], vocab: Vocab, block_size: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Slide a context window over each word to make next-character examples.

    A word starts from `block_size` boundary symbols and ends by predicting one, so L letters give
    L + 1 examples.

    Args:
        words: words without the boundary symbol.
        vocab: the symbols of the words.
        block_size: context length in characters, 1 to MAX_BLOCK_SIZE.

    Returns:
        X (N, block_size) int64 and Y (N,) int64, N = sum(len(w) + 1).

    Raises:
        UserError: a word holds a character that is not in the vocabulary.
        ValueError: the block size is out of range.
    """
    if not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise ValueError(
            f"block_size must be between 1 and {MAX_BLOCK_SIZE}, but got {block_size=}."
        )
    return Examples.of(words, vocab).tensors(block_size)


def format_examples(words: Sequence[str], vocab: Vocab, block_size: int) -> Iterator[str]:
    """Yield lines as the lecture prints them: each word, then its examples (`..e ------> m`)."""
    for word in words:
        yield word
        for x, y in zip(*build_dataset([word], vocab, block_size), strict=True):
            yield f"{vocab.decode(x.tolist())} ------> {vocab.decode([int(y)])}"


@dataclass(frozen=True)
class Corpus:
    """The train and dev examples of one file of words; training never sees the test split.

    Attributes:
        sha256: of the file's bytes, in hex.
        source: the file's name, for display.
        teacher: soft targets of the train examples; None trains on the true targets only.

    Raises:
        ValueError: the teacher has another number of train examples.
    """

    vocab: Vocab
    train: Examples
    dev: Examples
    sha256: str
    source: str
    teacher: Teacher | None = None

    def __post_init__(self) -> None:
        if self.teacher is not None and len(self.teacher.rows) != len(self.train):
            raise ValueError("the teacher's soft targets are those of another train split.")

    @cached_property
    def n_words(self) -> tuple[int, int]:
        """Number of words in train and in dev."""
        # Each word's last example predicts the boundary.
        return int((self.train.targets == 0).sum()), int((self.dev.targets == 0).sum())


def load_corpus(path: Path | str | None = None) -> Corpus:
    """Read, split and encode a file of words; without a path, the embedded names.

    Raises:
        UserError: the file cannot be read, or it has fewer than 10 words.
    """
    raw = read_bytes(path)
    path = Path(NAMES if path is None else path)
    words = parse_words(raw, path)
    if len(words) < 10:
        raise UserError(
            f"{path}: {len(words)} words are too few to split in three; give at least 10."
        )

    vocab = Vocab.of(words)
    split = split_words(words)
    return Corpus(
        vocab,
        train=Examples.of(split.train, vocab),
        dev=Examples.of(split.dev, vocab),
        sha256=hashlib.sha256(raw).hexdigest(),
        source=path.name,
    )
