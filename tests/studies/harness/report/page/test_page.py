"""The report: one page with seven sections for every kind of study."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import optuna
import pytest
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from makemore.data import Corpus
from studies.harness.report.build import make_report
from tests.studies.synthetic import (
    PARAMS,
    SPACE,
    falling,
    make_study,
    make_trial,
    random_trials,
    repeats_of,
)

DIVERGED: dict[str, Any] = {"state": "PRUNED", "reason": "diverged at step 9"}
WEIRD: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "choice": CategoricalDistribution(["<b>&\"'", "$x ${y}", None, True]),
}
STUDIES: dict[str, Callable[[], optuna.Study]] = {
    "no trial": lambda: make_study(),
    "no attributes": lambda: optuna.create_study(
        study_name="bare", storage=optuna.storages.InMemoryStorage()
    ),
    "one trial": lambda: make_study([make_trial(PARAMS, falling(2.2))]),
    "a failed trial": lambda: make_study([make_trial(PARAMS, [], state="FAIL")]),
    "only pruned": lambda: make_study([make_trial(PARAMS, [2.9, 2.8], state="PRUNED")] * 12),
    "only diverged": lambda: make_study([make_trial(PARAMS, [], **DIVERGED)] * 12),
    "only repeats measured": lambda: make_study(
        [make_trial(PARAMS, [], state="FAIL"), *repeats_of(0, 2.1, 2.2)]
    ),
    "one parameter": lambda: make_study(random_trials(12, lambda p: p["lr"], {"lr": SPACE["lr"]})),
    "nothing searched": lambda: make_study([make_trial({}, falling(2.2))] * 3, {}),
    "equal trials": lambda: make_study([make_trial(PARAMS, falling(2.2))] * 12),
    "odd choices": lambda: make_study(random_trials(12, lambda p: 2 + p["lr"], WEIRD), WEIRD),
}
JARGON = ("blind", "stair", "any time", "foretell", "foretold", "beside", "ladder", "at hand")


class Reader(HTMLParser):
    """Collects tags, texts and links of a page, and fails on tags that do not close."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.links: list[str] = []
        self.tags: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for key, value in attrs if key in ("href", "src", "xlink:href")]
        if tag not in ("meta", "link", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if tag not in ("meta", "link", "br"):
            self.open.pop()

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def read(page: str) -> Reader:
    reader = Reader()
    reader.feed(page)
    assert reader.open == []
    return reader


def check_sections(study: optuna.Study, corpus: Corpus) -> None:
    reader = read(make_report(study, corpus, None))

    headings = [text for text in reader.texts if re.match(r"\d\. ", text)]
    assert [heading[0] for heading in headings] == list("1234567")
    assert "What to do next" in reader.texts
    words = " ".join(reader.texts[reader.texts.index("What to do next") :]).lower()
    assert "nan" not in words.split()
    assert not [word for word in JARGON if re.search(rf"\b{word}\b", words)]


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_has_seven_sections(kind: str, small_corpus: Corpus) -> None:
    check_sections(STUDIES[kind](), small_corpus)


def test_study_with_repeats_has_seven_sections(
    rich_study: optuna.Study, small_corpus: Corpus
) -> None:
    check_sections(rich_study, small_corpus)


def test_page_needs_no_other_file(rich_study: optuna.Study, small_corpus: Corpus) -> None:
    page = make_report(rich_study, small_corpus, None)

    reader = read(page)
    assert "script" not in reader.tags and "img" not in reader.tags
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert "url(http" not in page and "@import" not in page
    # Every reference leads to an id of the page, and no id is used twice.
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([\w-]+)', page)) <= set(ids)


def test_page_of_500_trials_is_small(corpus: Corpus) -> None:
    study = make_study(random_trials(500, lambda p: 2 + 0.5 / p["block_size"]))

    assert len(make_report(study, corpus, None)) < 1_500_000


def test_text_is_escaped_and_passwords_are_masked(small_corpus: Corpus) -> None:
    flags = ["--storage", "postgresql://me:secret@host/db"]

    page = make_report(
        STUDIES["odd choices"](), small_corpus, None, {"flags": flags, "store_flags": flags}
    )

    assert "<b>&" not in page and "secret" not in page and "me:***@host" in page


def test_page_says_how_it_was_written(small_corpus: Corpus) -> None:
    context = {
        "written": "2026-11-24 12:00",
        "versions": {"torch": "2.7"},
        "again": "python studies/report.py made-up",
    }

    page = make_report(STUDIES["one trial"](), small_corpus, None, context)

    assert "Written 2026-11-24 12:00. torch 2.7." in page
    assert "<code>python studies/report.py made-up</code>" in page


def test_large_study_has_a_small_page_that_says_what_it_draws(large_study: optuna.Study) -> None:
    page = make_report(large_study, None, None)

    assert "2,300 trials of 1,000 steps (1,534 complete, 766 pruned)" in page
    assert page.count("2,000 of 2,300 trials are drawn: the best 500, and a random sample") == 1
    assert page.count("400 of 2,300 trials are drawn: the best 100, and a random sample") == 2
    assert len(page) < 3_000_000
    # Numbers of trials have no comma, because the user searches for them elsewhere.
    assert not re.search(r"<td>\d,\d{3}</td><td>[23]\.\d{4}</td>", page)
