"""Words, the vocabulary and the split into train, dev and test."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from makemore.errors import UserError

BOUNDARY = "."  # begins and ends every word; symbol 0
NAMES = Path(__file__).with_name(
    "names.txt"
)  # 32,257 first names, US Social Security Administration, 2018
SPLIT_SEED = 42  # of the lecture's split


def read_words(path: Path | str | None = None) -> list[str]:
    """Read one word a line from a UTF-8 file; without a path, the embedded names.

    A byte-order mark, CRLF line ends, blank lines and spaces around a word are dropped.

    Raises:
        UserError: the path is missing or a directory, the file is empty or not UTF-8, or a word holds the boundary
            character; one sentence that names the file and, where there is one, the line.
    """
    return parse_words(read_bytes(path), path)


def parse_words(raw: bytes, path: Path | str | None) -> list[str]:
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {number}: not UTF-8 text; save the file as UTF-8, one word a line."
        ) from None
    # Not splitlines(): that also breaks lines at form feeds and at Unicode separators, which may stand inside a word.
    lines = [line.strip() for line in text.replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    for number, line in enumerate(lines, 1):
        if BOUNDARY in line:
            raise UserError(
                f"{path}, line {number}: {line!r} holds {BOUNDARY!r}, which marks where words begin and end; remove it."
            )
    words = [line for line in lines if line]
    if not words:
        raise UserError(f"{path}: holds no words; give a text file with one word a line.")
    return words


def read_bytes(path: Path | str | None) -> bytes:
    path = Path(NAMES if path is None else path)
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a text file with one word a line.") from None
    except IsADirectoryError:
        raise UserError(f"{path}: is a directory; give a text file with one word a line.") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}).") from None


class Vocab:
    """The symbols of a corpus: the boundary is 0, the characters follow in sorted order from 1.

    Args:
        characters: every character but the boundary, in the order of their codes from 1.

    Raises:
        UserError: there are more characters than 16 bits can number.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        if len(characters) >= 2**16:
            raise UserError(
                f"{len(characters)} different characters are too many; a vocabulary holds up to 65,535."
            )
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
            UserError: the text holds a character that the vocabulary lacks; names the text and the character.
        """
        try:
            return [self._codes[character] for character in text]
        except KeyError as error:
            known = "".join(self.symbols)
            raise UserError(
                f"{text!r} holds {error.args[0]!r}, which is not one of the symbols {known!r}."
            ) from None

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
        UserError: fewer than 10 words, so that a split would be empty.
    """
    if len(words) < 10:
        raise UserError(
            f"{len(words)} words are too few to split into train, dev and test; at least 10 are needed."
        )
    shuffled = list(words)
    random.Random(seed).shuffle(shuffled)
    n1, n2 = int(0.8 * len(words)), int(0.9 * len(words))
    return Split(shuffled[:n1], shuffled[n1:n2], shuffled[n2:])
