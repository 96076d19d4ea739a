"""Examples and corpus: golden numbers of the lecture, and equality with the lecture's loop."""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from makemore.config import MAX_BLOCK_SIZE, Config
from makemore.data import Corpus, Examples, build_dataset, format_examples, load_corpus
from makemore.errors import UserError
from makemore.model import MLP
from makemore.words import NAMES, Vocab, read_words, split_words
from tests.conftest import ROOT

# Characters of one, two, three and four UTF-8 bytes, with the lecture's boundary; no white space.
ALPHABET = "ab.zéжя漢字😀𝔘"
word_lists = st.lists(
    st.text(st.sampled_from(ALPHABET), min_size=1, max_size=12), min_size=1, max_size=20
)


# --- the lecture's numbers


def test_lectures_file_has_its_counts(lecture_names: Path) -> None:
    corpus = load_corpus(lecture_names)
    words = read_words(lecture_names)

    assert corpus.sha256 == "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"
    assert len(words) == 32_033 and len(set(words)) == 29_494
    assert (len(corpus.train), len(corpus.dev)) == (182_625, 22_655)
    assert len(Examples.of(split_words(words).test, corpus.vocab)) == 22_866
    for block_size in (1, 3, 8):
        assert len(build_dataset(words, corpus.vocab, block_size)[1]) == 228_146


def test_embedded_file_is_the_one_of_2018(corpus: Corpus) -> None:
    assert corpus.sha256 == "bd02dfd33179e23ec2dd093cbd4de619834f75d660ef1ae04d3127e7a0110053"
    assert len(read_words()) == 32_257 and corpus.source == NAMES.name


def test_windows_of_emma_are_the_lectures() -> None:
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


def test_examples_show_another_boundary_for_dots() -> None:
    assert list(format_examples(["M."], Vocab.of(["M."]), 2)) == [
        "M.",
        "|| ------> M",
        "|M ------> .",
        "M. ------> |",
    ]


# --- examples as windows of a stream, compared with a loop


def loop(words: list[str], vocab: Vocab, block_size: int) -> tuple[list[list[int]], list[int]]:
    """Return the examples of the lecture's loop."""
    X = []
    Y = []
    for word in words:
        context = [0] * block_size
        for code in [*vocab.encode(word), 0]:
            X.append(context)
            Y.append(code)
            context = [*context[1:], code]
    return X, Y


@settings(deadline=None)
@given(word_lists, st.integers(1, MAX_BLOCK_SIZE))
def test_examples_equal_the_lectures_loop(words: list[str], block_size: int) -> None:
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
    assert contexts[examples.context_of(block_size)].tolist() == X.tolist()
    assert len({tuple(context) for context in contexts.tolist()}) == len(contexts)
    assert distinct.counts.sum() == len(examples)


def test_distinct_counts_reproduce_the_exact_mean(corpus: Corpus) -> None:
    model = MLP(Config(), len(corpus.vocab))
    dev = corpus.dev
    d = dev.distinct(3)
    windows = np.lib.stride_tricks.sliding_window_view(dev.stream, 3)
    contexts = torch.from_numpy(windows[d.positions - 3].astype(np.int64))
    of_pair = torch.from_numpy(np.repeat(np.arange(len(contexts)), np.diff(d.offsets)))
    targets = torch.from_numpy(d.targets.astype(np.int64))
    X, Y = dev.tensors(3)
    with torch.no_grad():
        nats = -torch.log_softmax(model(contexts).double(), 1)[of_pair, targets]
        exact = torch.nn.functional.cross_entropy(model(X).double(), Y)

    mean = (nats * torch.from_numpy(d.counts)).sum().item() / len(dev)
    assert mean == pytest.approx(exact.item(), rel=1e-6)
    assert len(contexts) < len(dev) / 5


def test_more_than_256_symbols_take_two_bytes() -> None:
    words = [chr(0x4E00 + i) + chr(0x4E00 + i + 1) for i in range(300)]
    vocab = Vocab.of(words)
    X, Y = build_dataset(words, vocab, 2)

    examples = Examples.of(words, vocab)

    assert examples.stream.dtype == np.uint16
    assert len(examples.distinct(2).positions) == len({tuple(context) for context in X.tolist()})
    assert Examples.of(["ab"], Vocab("ab")).stream.dtype == np.uint8
    assert (X.tolist(), Y.tolist()) == loop(words, vocab, 2)


def test_many_words_make_examples_without_copies() -> None:
    words = [f"w{i}" for i in range(200_000)]
    examples = Examples.of(words, Vocab.of(words))

    n = sum(len(word) + 1 for word in words)
    assert len(examples) == n
    # One byte a symbol and four an example, for every block size.
    assert examples.stream.nbytes == n + (MAX_BLOCK_SIZE - 1) * len(words) + MAX_BLOCK_SIZE
    assert examples.positions.nbytes == 4 * n
    assert examples.distinct(8).counts.sum() == n


def test_too_many_words_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    size = 3 + 4 * MAX_BLOCK_SIZE
    monkeypatch.setattr("makemore.data.MAX_STREAM", size)
    assert len(Examples.of(["a", "b", "c"], Vocab("abc")).stream) == size
    with pytest.raises(UserError, match="3 words are too many: they take 132 symbols"):
        Examples.of(["a", "b", "cc"], Vocab("abc"))


@pytest.mark.parametrize(("word", "character"), [("xa", "x"), ("a.", ".")])
def test_unknown_character_of_a_word_is_named(word: str, character: str) -> None:
    # The boundary is not a character of words either.
    with pytest.raises(UserError) as caught:
        Examples.of(["ab", word], Vocab("abc"))
    assert str(caught.value) == f"character '{character}' is not one of the symbols 'abc'."


@pytest.mark.parametrize("block_size", [0, MAX_BLOCK_SIZE + 1])
def test_block_size_out_of_range_is_refused(block_size: int) -> None:
    with pytest.raises(
        ValueError, match=f"between 1 and {MAX_BLOCK_SIZE}, but got block_size={block_size}"
    ):
        build_dataset(["ab"], Vocab("ab"), block_size)


# --- the corpus


def test_corpus_counts_words_and_has_no_test(corpus: Corpus) -> None:
    split = split_words(read_words())

    assert corpus.n_words == (len(split.train), len(split.dev))
    assert len(corpus.train) + len(corpus.dev) == sum(len(w) + 1 for w in split.train + split.dev)


def test_hash_is_of_the_bytes(tmp_path: Path) -> None:
    content = b"\xef\xbb\xbf" + b"\r\n".join(bytes([97 + i]) * 3 for i in range(10))
    path = tmp_path / "words.txt"
    path.write_bytes(content)

    corpus = load_corpus(path)

    assert corpus.n_words == (8, 1)
    assert (corpus.sha256, corpus.source) == (hashlib.sha256(content).hexdigest(), "words.txt")


def test_fewer_than_ten_words_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_bytes(b"a\nb\nc\nd\ne\nf\ng\nh\ni\n")

    with pytest.raises(UserError) as caught:
        load_corpus(path)
    assert str(caught.value) == (
        f"{path}: 9 words are too few to split in three; give at least 10."
    )
    with pytest.raises(UserError, match="missing.txt: no such file"):
        load_corpus(tmp_path / "missing.txt")


def test_corpus_loads_without_torch() -> None:
    # torch takes a second to import; a script that reads only words must not pay for it.
    code = (
        "import sys; from makemore.data import load_corpus; "
        "print(len(load_corpus().vocab), 'torch' in sys.modules)"
    )

    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )

    assert done.stdout.split() == ["27", "False"]
