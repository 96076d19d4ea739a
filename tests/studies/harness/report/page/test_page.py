"""The report: seven sections in one page that needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from html.parser import HTMLParser
from typing import Any

import optuna
import pytest
import torch
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution

from makemore.config import Config
from makemore.counts import unseen_words
from makemore.data import Corpus
from makemore.model import MLP
from makemore.sampling import score_words
from studies.harness.report.build import make_report
from studies.harness.report.judge.findings import check_model, judge_study
from studies.harness.report.page.next_steps import next_steps
from studies.harness.report.results import read_results
from tests.studies.synthetic import SPACE, falling, make_study, make_trial, random_trials

PARAMS = {"lr": 0.1, "block_size": 3, "n_hidden": 100, "batch_size": 32}
WEIRD: dict[str, BaseDistribution] = {
    "lr": FloatDistribution(1e-3, 1.0, log=True),
    "choice": CategoricalDistribution(["<b>&\"'", "$x ${y}", None, True]),
}


def repeats_of(number: int, *losses: float) -> list[Any]:
    return [make_trial(PARAMS, falling(loss), repeat_of=number) for loss in losses]


def rich_study() -> optuna.Study:
    """Sixty trials whose loss falls with block_size, and repeats of the best two."""
    study = make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"]))
    for trial in read_results(study).trials.trial[:2]:
        study.add_trials(repeats_of(int(trial), 2.07, 2.08, 2.09))
    return study


STUDIES: dict[str, Callable[[], optuna.Study]] = {
    "no trial": lambda: make_study(),
    "no attributes": lambda: optuna.create_study(
        study_name="bare", storage=optuna.storages.InMemoryStorage()
    ),
    "one trial": lambda: make_study([make_trial(PARAMS, falling(2.2))]),
    "a failed trial": lambda: make_study([make_trial(PARAMS, [], state="FAIL")]),
    "only pruned": lambda: make_study([make_trial(PARAMS, [2.9, 2.8], state="PRUNED")] * 12),
    "only diverged": lambda: make_study(
        [make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 9")] * 12
    ),
    "only repeats measured": lambda: make_study(
        [make_trial(PARAMS, [], state="FAIL"), *repeats_of(0, 2.1, 2.2)]
    ),
    "one parameter": lambda: make_study(random_trials(12, lambda p: p["lr"], {"lr": SPACE["lr"]})),
    "nothing searched": lambda: make_study([make_trial({}, falling(2.2))] * 3, {}),
    "equal trials": lambda: make_study([make_trial(PARAMS, falling(2.2))] * 12),
    "odd choices": lambda: make_study(random_trials(12, lambda p: 2 + p["lr"], WEIRD), WEIRD),
    "sixty trials and repeats": rich_study,
}


class Reader(HTMLParser):
    """Collects what a page holds, and fails on tags that do not close."""

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


@pytest.mark.parametrize("kind", STUDIES)
def test_every_kind_of_study_has_a_whole_page_with_seven_sections(
    kind: str, small_corpus: Corpus
) -> None:
    reader = read(make_report(STUDIES[kind](), small_corpus, None))

    headings = [text for text in reader.texts if re.match(r"\d\. ", text)]
    assert [heading[0] for heading in headings] == list("1234567")
    assert "What to do next" in reader.texts
    assert "nan" not in " ".join(reader.texts).lower().split()


def test_the_page_needs_nothing_but_itself(small_corpus: Corpus) -> None:
    page = make_report(rich_study(), small_corpus, None)

    reader = read(page)
    assert "script" not in reader.tags and "img" not in reader.tags
    assert all(link.startswith(("#", "data:")) for link in reader.links)
    assert "url(http" not in page and "@import" not in page
    # Every reference leads to an id of the page, and no id stands twice.
    ids = re.findall(r' id="([^"]+)"', page)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:xlink:href="#|url\(#)([\w-]+)', page)) <= set(ids)


def test_the_answer_the_noise_and_the_commands_stand_before_the_first_section(
    small_corpus: Corpus,
) -> None:
    context = {"script": "studies/mlp.py", "flags": ["--names", "words.txt"]}

    page = make_report(rich_study(), small_corpus, None, context)

    results = read_results(rich_study())
    first = page[: page.index("1. The answer")]
    assert f"{results.trials.dev_loss[0]:.4f}" in first
    assert "further seeds 2.0800 ±" in first
    assert "widen block_size beyond 8" in first
    assert "studies/mlp.py --study made-up-longer --names words.txt --steps 2000" in first
    assert "experiments/export.py made-up" in first and "experiments/retrain.py" in first


def test_the_page_tells_whether_the_study_has_searched_enough(small_corpus: Corpus) -> None:
    # A second half that is no better than the first, then one that is far better.
    flat, fell = (
        [make_trial(PARAMS, falling(2.2 - 0.1 * (i > 0) - late * (i > 20))) for i in range(24)]
        for late in (0, 0.05)
    )
    repeats = repeats_of(1, 2.10, 2.11, 2.12)

    enough, more = (
        make_report(make_study([*made, *repeats]), small_corpus, None, {"script": "studies/mlp.py"})
        for made in (flat, fell)
    )

    first, section = enough.split("Have we searched enough?")
    assert "more trials are unlikely to help" in first and "more trials." not in first
    assert '<span class="tag fine">stop</span>' in section
    first, section = more.split("Have we searched enough?")
    assert (
        "--study made-up --trials 30" in first
        and '<span class="tag act">continue</span>' in section
    )
    assert (
        "lowered the best dev loss by 0.0500 nats, 33% of the total gain of 0.1500 since trial 0"
        in section
    )


def test_a_page_of_500_trials_is_small(corpus: Corpus) -> None:
    study = make_study(random_trials(500, lambda p: 2 + 0.5 / p["block_size"]))

    assert len(make_report(study, corpus, None)) < 1_500_000


def test_the_ladder_stands_in_order_with_the_best_in_its_place(corpus: Corpus) -> None:
    page = make_report(rich_study(), corpus, None)

    ladder = page[page.index("The ladder") : page.index("2. Any time")]
    names = re.findall(r'<td class="text">([^<]+)</td>', ladder)
    losses = [float(loss) for loss in re.findall(r"</td><td>([\d.]+)</td><td>[+−]?", ladder)]
    assert names[0] == "uniform guess, ln V" and losses == sorted(losses, reverse=True)
    assert any(name.startswith("best of this study") for name in names)


def test_the_model_is_measured_on_words_that_train_lacks_and_sampled(corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16, init="kaiming"), len(corpus.vocab))

    examined = check_model(corpus, model)

    new = unseen_words(corpus)
    lengths = [len(word) + 1 for word in new]
    expected = float((score_words(model, corpus.vocab, new) * lengths).sum() / sum(lengths))
    assert examined.new_loss == pytest.approx(expected) and examined.n_new == len(new)
    assert examined.dev_loss == pytest.approx(model.loss(*corpus.dev.tensors(3)).item(), rel=1e-5)
    assert (
        len(examined.words) == 10
        and examined.share_in_train is not None
        and 0 <= examined.share_in_train < 1
    )

    page = make_report(rich_study(), corpus, model)
    assert f"{examined.new_loss:.4f}" in page and f"<li>{examined.words[0]}</li>" in page


def test_a_model_whose_weights_are_not_finite_is_left_out(small_corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16), len(small_corpus.vocab))
    with torch.no_grad():
        model.W1.fill_(float("nan"))

    assert check_model(small_corpus, model).dev_loss is None


def test_text_from_the_study_is_escaped_and_a_password_is_not_shown(small_corpus: Corpus) -> None:
    flags = ["--storage", "postgresql://me:secret@host/db"]

    page = make_report(
        STUDIES["odd choices"](), small_corpus, None, {"flags": flags, "store_flags": flags}
    )

    assert "<b>&" not in page and "secret" not in page and "me:***@host" in page


def test_a_study_of_too_few_trials_is_told_to_search_on() -> None:
    steps = next_steps(
        judge_study(read_results(STUDIES["one trial"]())), {"script": "studies/mlp.py"}
    )

    assert "Search on" in steps[0].sentence and steps[0].command.endswith(
        "--study made-up --trials 32"
    )


def test_a_study_that_only_diverged_is_told_to_lower_lr() -> None:
    (step,) = next_steps(judge_study(read_results(STUDIES["only diverged"]())), {})

    assert "all diverged" in step.sentence and "Lower the range of lr" in step.sentence


def test_the_smallest_tied_model_is_the_one_to_export() -> None:
    trials = [make_trial(PARAMS, falling(2.1 + 0.001 * i)) for i in range(12)]
    small = trials[3].user_attrs["summary"]
    trials[3].set_user_attr("summary", {**small, "metrics": {"seconds": 1.0, "n_params": 10}})
    study = make_study([*trials, *repeats_of(0, 2.10, 2.11, 2.12)])

    steps = next_steps(
        judge_study(read_results(study)), {"store_flags": ["--storage", "s.journal"]}
    )

    assert any(
        step.command.endswith("export.py made-up --storage s.journal --trial 3") for step in steps
    )
