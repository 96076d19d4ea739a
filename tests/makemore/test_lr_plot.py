"""The picture of a range test: its file, and the suggestions in it."""

from __future__ import annotations

from pathlib import Path

import pytest

from makemore.config import Config
from makemore.data import Corpus
from makemore.errors import UserError
from makemore.lr_plot import plot_lr_sweep
from makemore.lr_sweep import DEFAULT_RULE, RULES, lr_range_test

TINY = Config(n_embd=2, n_hidden=8, batch_size=4)


@pytest.mark.parametrize("hi", [1.0, 1e4])
def test_picture_is_a_png(small_corpus: Corpus, tmp_path: Path, hi: float) -> None:
    sweep = lr_range_test(TINY, small_corpus, hi=hi, n_steps=100)

    path = plot_lr_sweep(sweep, tmp_path / "sweep.png")
    tenth = plot_lr_sweep(sweep, tmp_path / "tenth.png", rule="tenth")

    assert path.read_bytes().startswith(b"\x89PNG") and path.stat().st_size > 10_000
    assert tenth.read_bytes() != path.read_bytes()


@pytest.mark.parametrize("chosen", [None, "tenth"])
def test_picture_names_each_rule_and_suggestion(
    small_corpus: Corpus, tmp_path: Path, chosen: str | None
) -> None:
    sweep = lr_range_test(TINY, small_corpus, n_steps=100)

    # An SVG keeps each text as a comment.
    text = plot_lr_sweep(sweep, tmp_path / "sweep.svg", rule=chosen).read_text()

    for rule in RULES:
        if rule == (chosen or DEFAULT_RULE):
            assert f" {rule}: lr {sweep.suggest(rule):.3g}, exponent" in text
        else:
            assert f" {rule} {sweep.suggest(rule):.2g} " in text


def test_unknown_rule_draws_no_picture(small_corpus: Corpus, tmp_path: Path) -> None:
    sweep = lr_range_test(TINY, small_corpus, n_steps=100)

    with pytest.raises(UserError, match="unknown rule 'best'"):
        plot_lr_sweep(sweep, tmp_path / "sweep.png", rule="best")
    assert not list(tmp_path.iterdir())
