"""Words, vocabulary, split, and the examples that a context window makes of them."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from makemore.config import MAX_BLOCK_SIZE

BOUNDARY = "."  # begins and ends every word; symbol 0
NAMES = Path(__file__).with_name("names.txt")  # 32,257 first names, US Social Security Administration, 2018
SPLIT_SEED = 42  # of the lecture's split


def read_words(path: Path | str | None = None) -> list[str]:
    """Read one word a line from a UTF-8 file; without a path, the embedded names.

    A byte-order mark, CRLF line ends, blank lines and spaces around a word are dropped.

    Raises:
        ValueError: the path is missing or a directory, the file is empty or not UTF-8, or a word holds the boundary
            character; one sentence that names the file and, where there is one, the line.
    """
    return _parse_words(_read_bytes(path), path)


def _parse_words(raw: bytes, path: Path | str | None) -> list[str]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise ValueError(f"{path}, line {number}: not UTF-8 text; save the file as UTF-8, one word a line.") from None
    # Not splitlines(): that also breaks lines at form feeds and at Unicode separators, which may stand inside a word.
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if BOUNDARY in line:
            raise ValueError(
                f"{path}, line {number}: {line!r} holds {BOUNDARY!r}, which marks where words begin and end; remove it."
            )
    words = [line for line in lines if line]
    if not words:
        raise ValueError(f"{path}: holds no words; give a text file with one word a line.")
    return words


def _read_bytes(path: Path | str | None) -> bytes:
    path = Path(NAMES if path is None else path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; give a text file with one word a line.") from None
    except IsADirectoryError:
        raise ValueError(f"{path}: is a directory; give a text file with one word a line.") from None
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror}).") from None


class Vocab:
    """The symbols of a corpus: the boundary is 0, the characters follow in sorted order from 1.

    Args:
        characters: every character but the boundary, in the order of their codes from 1.

    Raises:
        ValueError: there are more characters than 16 bits can number.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        if len(characters) >= 2**16:
            raise ValueError(f"{len(characters)} different characters are too many; a vocabulary holds up to 65,535.")
        self.symbols = (BOUNDARY, *characters)
        self._codes = {symbol: code for code, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, words: Sequence[str]) -> Vocab:
        """The vocabulary of these words."""
        return cls(sorted(set("".join(words))))

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def encode(self, text: str) -> list[int]:
        """The codes of a text's characters.

        Raises:
            ValueError: the text holds a character that the vocabulary lacks; names the text and the character.
        """
        try:
            return [self._codes[character] for character in text]
        except KeyError as error:
            known = "".join(self.symbols)
            raise ValueError(f"{text!r} holds {error.args[0]!r}, which is not one of the symbols {known!r}.") from None

    def decode(self, codes: Sequence[int]) -> str:
        """The text of these codes."""
        return "".join(self.symbols[code] for code in codes)


class Split(NamedTuple):
    """Words of the three splits."""

    train: list[str]
    dev: list[str]
    test: list[str]


def split_words(words: Sequence[str], seed: int = SPLIT_SEED) -> Split:
    """Shuffle and split by word, 80 / 10 / 10, as the lecture does (random.seed(42); random.shuffle).

    Raises:
        ValueError: fewer than 10 words, so that a split would be empty.
    """
    if len(words) < 10:
        raise ValueError(f"{len(words)} words are too few to split into train, dev and test; at least 10 are needed.")
    shuffled = list(words)
    random.Random(seed).shuffle(shuffled)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    return Split(shuffled[:n1], shuffled[n1:n2], shuffled[n2:])


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
            ValueError: a word holds a character that `vocab` lacks.
        """
        lengths = np.fromiter((len(word) for word in words), np.int64, len(words))
        letters = _encode_letters("".join(words), vocab)
        starts = np.cumsum(lengths + MAX_BLOCK_SIZE) - lengths  # where each word's first letter stands
        stream = np.zeros(int(lengths.sum()) + MAX_BLOCK_SIZE * (len(words) + 1), letters.dtype)
        first = np.cumsum(lengths) - lengths
        # A letter's place is its place among all letters, shifted by its word's start.
        stream[np.arange(len(letters)) + np.repeat(starts - first, lengths)] = letters
        first_example = np.cumsum(lengths + 1) - (lengths + 1)
        positions = np.arange(int((lengths + 1).sum())) + np.repeat(starts - first_example, lengths + 1)
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

    def tensors(self, block_size: int, rows: np.ndarray | slice = slice(None)) -> tuple[torch.Tensor, torch.Tensor]:
        """X (n, block_size) int64 and Y (n,) int64."""
        X, Y = self.contexts(block_size, rows), self.targets[rows]
        return torch.from_numpy(X.astype(np.int64)), torch.from_numpy(Y.astype(np.int64))

    def distinct(self, block_size: int) -> Distinct:
        """The different contexts of the split, each with its targets and how often each follows; made once.

        Names repeat themselves: at block size 3 the lecture's 22,655 dev examples hold 2,965 different contexts, and an
        exact mean over the split needs no more forward passes than that.
        """
        if block_size not in self._distinct:
            rows = np.empty((len(self), block_size + 1), ">u2")  # big-endian, so that bytes sort as numbers
            rows[:, :-1], rows[:, -1] = self.contexts(block_size), self.targets
            _, first, counts = np.unique(
                rows.view(f"V{rows.strides[0]}").ravel(), return_index=True, return_counts=True
            )
            pairs = rows[first]  # each (context, target) once, in the order of contexts
            new = np.r_[True, np.any(pairs[1:, :-1] != pairs[:-1, :-1], axis=1)]
            offsets = np.r_[np.flatnonzero(new), len(pairs)].astype(np.int32)
            targets = np.ascontiguousarray(self.targets[first])
            self._distinct[block_size] = Distinct(self.positions[first[new]], offsets, targets, counts.astype(np.int32))
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
        raise ValueError(f"character {text[unknown[0]]!r} is not one of the symbols {''.join(vocab.symbols)!r}.")
    return letters.astype(np.uint8) if len(vocab) <= 256 else letters


def build_dataset(words: Sequence[str], vocab: Vocab, block_size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Slide a context window over each word to make next-character examples.

    A word starts from `block_size` boundary symbols and ends by predicting one, so L letters give L + 1 examples.

    Args:
        words: words without the boundary character.
        block_size: context length in characters, 1 to MAX_BLOCK_SIZE.

    Returns:
        X (N, block_size) int64 and Y (N,) int64, N = sum(len(w) + 1).

    Raises:
        ValueError: a word holds a character that `vocab` lacks, or the block size is out of range.
    """
    if not 1 <= block_size <= MAX_BLOCK_SIZE:
        raise ValueError(f"block_size must be between 1 and {MAX_BLOCK_SIZE}, but got {block_size=}.")
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
        ValueError: as `read_words` and `split_words`.
    """
    raw = _read_bytes(path)
    path = Path(NAMES if path is None else path)
    words = _parse_words(raw, path)
    if len(words) < 10:
        raise ValueError(f"{path}: {len(words)} words are too few to split in three; at least 10 are needed.")
    vocab, split = Vocab.of(words), split_words(words)
    sha256 = hashlib.sha256(raw).hexdigest()
    return Corpus(vocab, Examples.of(split.train, vocab), Examples.of(split.dev, vocab), sha256, path.name)
