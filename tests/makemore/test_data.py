"""Words, vocabulary, split and examples: golden numbers of the lecture, and every bad file."""

from __future__ import annotations

import hashlib
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.config import MAX_BLOCK_SIZE, Config
from makemore.data import Corpus, Examples, build_dataset, format_examples, load_corpus
from makemore.model import MLP
from makemore.words import NAMES, Vocab, read_words, split_words

# Characters of one, two, three and four UTF-8 bytes; none is the boundary or white space.
ALPHABET = "abzéжя漢字😀𝔘"
word_lists = st.lists(
    st.text(st.sampled_from(ALPHABET), min_size=1, max_size=12), min_size=1, max_size=20
)


# --- the lecture's numbers


def test_the_lectures_file_has_its_counts(lecture_names: Path) -> None:
    corpus, words = load_corpus(lecture_names), read_words(lecture_names)

    assert corpus.sha256 == "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
    assert len(words) == 32_033 and len(set(words)) == 29_494
    assert (len(corpus.train), len(corpus.dev)) == (182_625, 22_655)
    assert len(Examples.of(split_words(words).test, corpus.vocab)) == 22_866
    for block_size in (1, 3, 8):
        assert len(build_dataset(words, corpus.vocab, block_size)[1]) == 228_146


def test_the_embedded_file_is_the_one_of_2018(corpus: Corpus) -> None:
    assert corpus.sha256 == "bd02dfd33179e23ec2dd093cbd4de619834f75d660ef1ae04d3127e7a0110053"
    assert len(read_words()) == 32_257 and corpus.source == NAMES.name
    assert corpus.vocab.symbols == tuple(".abcdefghijklmnopqrstuvwxyz")


def test_the_first_windows_of_emma_are_the_lectures() -> None:
    vocab = Vocab("abcdefghijklmnopqrstuvwxyz")
    X, Y = build_dataset(["emma"], vocab, 3)

    assert X.tolist() == [[0, 0, 0], [0, 0, 5], [0, 5, 13], [5, 13, 13], [13, 13, 1]]
    assert Y.tolist() == [5, 13, 13, 1, 0]
    assert X.dtype == Y.dtype == torch.int64
    assert list(format_examples(["emma"], vocab, 3)) == [
        "emma",
        "... ------> e",
        "..e ------> m",
        ".em ------> m",
        "emm ------> a",
        "mma ------> .",
    ]


def test_the_split_is_the_lectures_shuffle(words: list[str]) -> None:
    shuffled = list(words)
    random.seed(42)
    random.shuffle(shuffled)

    assert split_words(words) == (shuffled[:24], shuffled[24:27], shuffled[27:])


# --- examples as windows of a stream, against a loop


def loop(words: list[str], vocab: Vocab, block_size: int) -> tuple[list[list[int]], list[int]]:
    """The lecture's loop."""
    X, Y = [], []
    for word in words:
        context = [0] * block_size
        for code in [*vocab.encode(word), 0]:
            X.append(context)
            Y.append(code)
            context = [*context[1:], code]
    return X, Y


@settings(deadline=None)
@given(word_lists, st.integers(1, MAX_BLOCK_SIZE))
def test_examples_are_those_of_the_lectures_loop(words: list[str], block_size: int) -> None:
    vocab = Vocab.of(words)
    X, Y = build_dataset(words, vocab, block_size)

    assert (X.tolist(), Y.tolist()) == loop(words, vocab, block_size)


@settings(deadline=None)
@given(word_lists, st.integers(1, 9))
def test_distinct_contexts_count_every_example_once(words: list[str], block_size: int) -> None:
    examples = Examples.of(words, Vocab.of(words))
    distinct = examples.distinct(block_size)
    windows = np.lib.stride_tricks.sliding_window_view(examples.stream, block_size)
    contexts = windows[distinct.positions - block_size]

    counted = {
        (*contexts[m].tolist(), int(distinct.targets[p])): int(distinct.counts[p])
        for m in range(len(contexts))
        for p in range(distinct.offsets[m], distinct.offsets[m + 1])
    }

    X, Y = examples.tensors(block_size)
    pairs = [(*x, y) for x, y in zip(X.tolist(), Y.tolist(), strict=True)]
    assert counted == {pair: pairs.count(pair) for pair in pairs}
    assert len({tuple(context) for context in contexts.tolist()}) == len(contexts)
    assert distinct.counts.sum() == len(examples)


def test_distinct_counts_reproduce_the_exact_mean(corpus: Corpus) -> None:
    model, dev = MLP(Config(), len(corpus.vocab)), corpus.dev
    d = dev.distinct(3)
    windows = np.lib.stride_tricks.sliding_window_view(dev.stream, 3)
    contexts = torch.from_numpy(windows[d.positions - 3].astype(np.int64))
    of_pair = torch.from_numpy(np.repeat(np.arange(len(contexts)), np.diff(d.offsets)))
    with torch.no_grad():
        nats = -torch.log_softmax(model(contexts).double(), 1)[
            of_pair, torch.from_numpy(d.targets.astype(np.int64))
        ]
        exact = torch.nn.functional.cross_entropy(
            model(dev.tensors(3)[0]).double(), dev.tensors(3)[1]
        )

    assert (nats * torch.from_numpy(d.counts)).sum().item() / len(dev) == pytest.approx(
        exact.item(), rel=1e-6
    )
    assert len(contexts) < len(dev) / 5


def test_a_corpus_knows_its_words_and_holds_no_test(corpus: Corpus, words: list[str]) -> None:
    split = split_words(read_words())

    assert corpus.n_words == (len(split.train), len(split.dev))
    assert len(corpus.train) + len(corpus.dev) == sum(len(w) + 1 for w in split.train + split.dev)


# --- alphabets and sizes


def test_any_alphabet_goes_there_and_back() -> None:
    words = ["жанна", "ёжик", "漢字", "a😀b", "𝔘no"]
    vocab = Vocab.of(words)

    assert [vocab.decode(vocab.encode(word)) for word in words] == words
    assert vocab.symbols[0] == "." and list(vocab.symbols[1:]) == sorted(set("".join(words)))


def test_more_than_256_symbols_take_two_bytes_each() -> None:
    words = [chr(0x4E00 + i) + chr(0x4E00 + i + 1) for i in range(300)]
    vocab = Vocab.of(words)
    X, Y = build_dataset(words, vocab, 2)

    examples = Examples.of(words, vocab)
    assert examples.stream.dtype == np.uint16
    assert len(examples.distinct(2).positions) == len({tuple(context) for context in X.tolist()})
    assert Examples.of(["ab"], Vocab("ab")).stream.dtype == np.uint8
    assert (X.tolist(), Y.tolist()) == loop(words, vocab, 2)


def test_too_many_symbols_are_refused() -> None:
    with pytest.raises(ValueError, match="65536 different characters are too many"):
        Vocab([chr(i) for i in range(0x10000, 0x20000)])


def test_hundreds_of_thousands_of_words_make_examples_without_a_copy() -> None:
    words = [f"w{i}" for i in range(200_000)]
    examples = Examples.of(words, Vocab.of(words))

    n = sum(len(word) + 1 for word in words)
    assert len(examples) == n
    # One byte a symbol and four an example, whatever the block size.
    assert examples.stream.nbytes == n + (MAX_BLOCK_SIZE - 1) * len(words) + MAX_BLOCK_SIZE
    assert examples.positions.nbytes == 4 * n
    assert examples.distinct(8).counts.sum() == n


def test_a_character_outside_the_vocabulary_is_named() -> None:
    vocab = Vocab("abc")

    with pytest.raises(ValueError, match=r"character 'x' is not one of the symbols '\.abc'"):
        Examples.of(["ab", "xa"], vocab)
    with pytest.raises(
        ValueError, match=r"'aé' holds 'é', which is not one of the symbols '\.abc'"
    ):
        vocab.encode("aé")


@pytest.mark.parametrize("block_size", [0, MAX_BLOCK_SIZE + 1])
def test_a_block_size_out_of_range_is_refused(block_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"between 1 and {MAX_BLOCK_SIZE}, but got block_size={block_size}"
    ):
        build_dataset(["ab"], Vocab("ab"), block_size)


# --- files


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "words.txt"
    path.write_bytes(content)
    return path


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
def test_a_file_may_be_written_in_any_of_the_usual_ways(tmp_path: Path, content: bytes) -> None:
    assert read_words(write(tmp_path, content)) == ["emma", "olivia", "zoë"]


def test_a_word_may_hold_spaces_and_line_separators_within(tmp_path: Path) -> None:
    path = write(tmp_path, "anna maria\nx\u2028y\n".encode())

    assert read_words(path) == ["anna maria", "x\u2028y"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", ": holds no words"),
        (b"\n \n\t\r\n", ": holds no words"),
        (b"\xef\xbb\xbf", ": holds no words"),
        (b"emma\nol\xffivia\n", ", line 2: not UTF-8 text"),
        ("emma\n".encode("utf-16"), ", line 1: not UTF-8 text"),
        (b"emma\n\nst. john\n", ", line 3: 'st. john' holds '.'"),
        (b"emma\r\n.\r\n", ", line 2: '.' holds '.'"),
        (b"a\nb\nc\nd\ne\nf\ng\nh\ni\n", ": 9 words are too few"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence_that_names_file_and_line(
    tmp_path: Path, content: bytes, message: str
) -> None:
    path = write(tmp_path, content)

    with pytest.raises(ValueError) as caught:
        load_corpus(path)
    assert str(caught.value).startswith(f"{path}{message}")
    assert "\n" not in str(caught.value) and str(caught.value).endswith(".")


def test_a_path_that_is_no_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="missing.txt: no such file"):
        load_corpus(tmp_path / "missing.txt")
    with pytest.raises(ValueError, match=f"{tmp_path}: is a directory"):
        read_words(tmp_path)


def test_ten_words_are_enough_and_the_hash_is_of_the_bytes(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(bytes([97 + i]) * 3 for i in range(10))
    corpus = load_corpus(write(tmp_path, content))

    assert corpus.n_words == (8, 1)
    assert (corpus.sha256, corpus.source) == (hashlib.sha256(content).hexdigest(), "words.txt")
    with pytest.raises(ValueError, match="9 words are too few"):
        split_words(["a"] * 9)
