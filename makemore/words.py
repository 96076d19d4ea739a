"""Word lists: reading, vocabulary, and the split into train, dev and test."""

from __future__ import annotations

import os
import random
import sys
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import NamedTuple

from makemore.errors import UserError, check_input

# 32,257 first names, US Social Security Administration, 2018.
NAMES = Path(__file__).with_name("names.txt")
SPLIT_SEED = 42  # of the lecture's split
# The boundary is displayed as the first of these that no word contains; the lecture's is ".".
BOUNDARIES = ".|#~_"


def read_words(path: Path | str | None = None) -> list[str]:
    """Read a UTF-8 file with one word per line; without a path, the embedded names.

    A byte-order mark, CRLF line ends, blank lines and spaces around a word are dropped.

    Raises:
        UserError: the path is missing or a directory, or the file is empty or not UTF-8.
    """
    return parse_words(read_bytes(path), path)


def parse_words(raw: bytes, path: Path | str | None) -> list[str]:
    """Return the words of a file's bytes; `path` names the file in messages.

    Raises:
        UserError: the bytes are not UTF-8, or they contain no word.
    """
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        number = raw[: error.start].count(b"\n") + 1
        raise UserError(
            f"{path}, line {number}: not UTF-8 text; save the file as UTF-8, one word per line."
        ) from None

    # splitlines() would also split at form feeds and Unicode separators, which a word may contain.
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    words = [word for line in lines if (word := line.strip())]
    if not words:
        raise UserError(f"{path}: contains no words; give a text file with one word per line.")
    return words


def read_bytes(path: Path | str | None) -> bytes:
    """Return the bytes of a file of words; without a path, of the embedded names.

    Raises:
        UserError: the file cannot be read, is not a regular file, or has a name that is not UTF-8.
    """
    path = Path(NAMES if path is None else path)
    try:
        check_input(path, "a text file with one word per line")
        str(path).encode()  # the stores and JSON need it
        return path.read_bytes()
    except UnicodeEncodeError:
        shown = os.fsencode(path).decode(errors="backslashreplace")
        raise UserError(f"{shown}: the name is not UTF-8 text; rename the file.") from None
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; give a text file with one word per line.") from None
    except IsADirectoryError:
        raise UserError(
            f"{path}: is a directory; give a text file with one word per line."
        ) from None
    except OSError as error:
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a readable text file."
        ) from None


class Vocab:
    """Symbols of a corpus: code 0 is the boundary, the characters have the codes from 1.

    The boundary begins and ends every word. It is displayed as "." unless a word contains ".";
    then it is displayed as another character that no word contains.

    Args:
        characters: all characters of the words, in the order of their codes.

    Raises:
        UserError: there are more characters than 16 bits can number.
    """

    def __init__(self, characters: Sequence[str]) -> None:
        if len(characters) >= 2**16:
            raise UserError(
                f"the words contain {len(characters):,} different characters; "
                "reduce them to at most 65,535."
            )
        self.symbols = (_choose_boundary(characters), *characters)
        self._codes = {symbol: code for code, symbol in enumerate(self.symbols)}

    @classmethod
    def of(cls, words: Sequence[str]) -> Vocab:
        """Return the vocabulary of some words, with the characters in sorted order."""
        return cls(sorted(set("".join(words))))

    @property
    def boundary(self) -> str:
        """The character that displays the boundary, symbol 0."""
        return self.symbols[0]

    def __len__(self) -> int:
        return len(self.symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocab) and self.symbols == other.symbols

    def __hash__(self) -> int:
        return hash(self.symbols)

    def encode(self, text: str) -> list[int]:
        """Return the codes of a text's characters.

        Raises:
            UserError: a character is not in the vocabulary.
        """
        try:
            return [self._codes[character] for character in text]
        except KeyError as error:
            known = "".join(self.symbols[1:])
            raise UserError(
                f"{text!r} holds {error.args[0]!r}, which is not one of the symbols {known!r}."
            ) from None

    def decode(self, codes: Sequence[int]) -> str:
        """Return the text of some codes."""
        return "".join(self.symbols[code] for code in codes)


def _choose_boundary(characters: Sequence[str]) -> str:
    """Return a character that is not one of `characters`: of BOUNDARIES if possible."""
    used = set(characters)
    # From U+2500 on there are more printable characters than a vocabulary can have.
    others = filter(str.isprintable, map(chr, range(0x2500, sys.maxunicode)))
    return next(symbol for symbol in chain(BOUNDARIES, others) if symbol not in used)


class Split(NamedTuple):
    """Words of the three splits."""

    train: list[str]
    dev: list[str]
    test: list[str]


def split_words(words: Sequence[str], seed: int = SPLIT_SEED) -> Split:
    """Shuffle the words and split them 80 / 10 / 10, as the lecture does.

    The lecture calls random.seed(42) and random.shuffle.

    Raises:
        UserError: there are fewer than 10 words, so a split would be empty.
    """
    if len(words) < 10:
        raise UserError(
            f"{len(words)} words are too few to split into train, dev and test; give at least 10."
        )
    shuffled = list(words)
    random.Random(seed).shuffle(shuffled)
    n1 = int(0.8 * len(words))
    n2 = int(0.9 * len(words))
    return Split(shuffled[:n1], shuffled[n1:n2], shuffled[n2:])
