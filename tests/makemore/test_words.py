"""Reading of word files, the vocabulary and its boundary, and the split."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from makemore.data import Corpus
from makemore.errors import UserError
from makemore.words import BOUNDARIES, Vocab, read_words, split_words


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    return path


# --- files


@pytest.mark.parametrize(
    "content",
    [
        b"emma\nolivia\nzo\xc3\xab",
        b"emma\nolivia\nzo\xc3\xab\n",
        b"\xef\xbb\xbfemma\nolivia\nzo\xc3\xab\n",
        b"emma\r\nolivia\r\nzo\xc3\xab\r\n",
        b"emma\rolivia\rzo\xc3\xab\r",
        b"  emma \t\nolivia  \n zo\xc3\xab\n",
        b"\n\nemma\n   \nolivia\n\n\nzo\xc3\xab\n\n",
    ],
    ids=["no last newline", "plain", "byte-order mark", "CRLF", "CR", "spaces", "blank lines"],
)
def test_usual_file_formats_give_the_same_words(tmp_path: Path, content: bytes) -> None:
    assert read_words(write(tmp_path, content)) == ["emma", "olivia", "zoë"]


def test_words_keep_inner_spaces_and_line_separators(tmp_path: Path) -> None:
    path = write(tmp_path, "anna maria\nx\u2028y\n".encode())

    assert read_words(path) == ["anna maria", "x\u2028y"]


def test_words_with_dots_are_read(tmp_path: Path) -> None:
    assert read_words(write(tmp_path, b"M.\nst. john\n.\n")) == ["M.", "st. john", "."]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": contains no words"),
        (b"\n \n\t\r\n", ": contains no words"),
        (b"\xef\xbb\xbf", ": contains no words"),
        (b"emma\nol\xffivia\n", ", line 2: not UTF-8 text"),
        ("emma\n".encode("utf-16"), ", line 1: not UTF-8 text"),
    ],
)
def test_bad_file_is_refused_with_its_line(tmp_path: Path, content: bytes, message: str) -> None:
    path = write(tmp_path, content)

    with pytest.raises(UserError) as caught:
        read_words(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing.txt: no such file"):
        read_words(tmp_path / "missing.txt")
    with pytest.raises(UserError, match=f"{tmp_path}: is a directory"):
        read_words(tmp_path)


# --- vocabulary


def test_path_that_is_no_regular_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero"), Path("/dev/null")):
        with pytest.raises(UserError, match=f"{path}: is not a regular file; give a text file"):
            read_words(path)
    with pytest.raises(UserError, match="cannot be read .File name too long.; give a readable"):
        read_words("x" * 300)


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.txt")
    Path(path).write_text("emma\n")

    with pytest.raises(UserError) as caught:
        read_words(path)

    assert (
        str(caught.value)
        == f"{tmp_path}/caf\\xe9.txt: the name is not UTF-8 text; rename the file."
    )


def test_embedded_names_have_the_lectures_symbols(corpus: Corpus) -> None:
    assert corpus.vocab.symbols == tuple(".abcdefghijklmnopqrstuvwxyz")


def test_any_alphabet_is_encoded_and_decoded() -> None:
    words = ["жанна", "ёжик", "漢字", "a😀b", "𝔘no"]
    vocab = Vocab.of(words)

    assert [vocab.decode(vocab.encode(word)) for word in words] == words
    assert vocab.symbols[0] == "." and list(vocab.symbols[1:]) == sorted(set("".join(words)))


@pytest.mark.parametrize(
    ("word", "boundary"),
    [
        ("abc", "."),
        ("M.", "|"),
        ("|", "."),
        (".|", "#"),
        (".|#", "~"),
        (".|#~", "_"),
        (BOUNDARIES, "\u2500"),
        (BOUNDARIES + "\u2500\u2501", "\u2502"),
    ],
)
def test_boundary_is_a_character_of_no_word(word: str, boundary: str) -> None:
    vocab = Vocab.of(["ab", word])

    assert vocab.boundary == vocab.symbols[0] == boundary
    assert vocab.decode([0]) == boundary and vocab.encode(boundary) == [0]
    # The display character changes no other code.
    assert list(vocab.symbols[1:]) == sorted(set("ab" + word))
    assert vocab.decode(vocab.encode(word)) == word


def test_full_vocabulary_still_has_a_boundary() -> None:
    used = [*BOUNDARIES, *map(chr, range(0x2500, 0x2500 + 2**16 - 1 - len(BOUNDARIES)))]

    vocab = Vocab(used)

    assert len(set(vocab.symbols)) == len(vocab) == 2**16 and vocab.boundary.isprintable()


def test_too_many_characters_are_refused() -> None:
    with pytest.raises(UserError, match="65,536 different characters; reduce them to at most"):
        Vocab([chr(i) for i in range(0x10000, 0x20000)])


def test_unknown_character_of_a_text_is_named() -> None:
    message = "'aé' holds 'é', which is not one of the symbols 'abc'"

    with pytest.raises(UserError, match=message):
        Vocab("abc").encode("aé")


def test_equal_symbols_make_equal_vocabularies() -> None:
    assert Vocab("abc") == Vocab.of(["cab"]) != Vocab("ab")
    assert hash(Vocab("abc")) == hash(Vocab.of(["cab"]))


# --- split


def test_split_is_the_lectures_shuffle(words: list[str]) -> None:
    shuffled = list(words)
    random.seed(42)
    random.shuffle(shuffled)

    assert split_words(words) == (shuffled[:24], shuffled[24:27], shuffled[27:])


def test_split_needs_ten_words() -> None:
    assert [len(part) for part in split_words(["a"] * 10)] == [8, 1, 1]
    with pytest.raises(UserError, match="9 words are too few"):
        split_words(["a"] * 9)
