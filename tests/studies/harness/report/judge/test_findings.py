"""All verdicts on a study together, and the check of its best model."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch

from makemore.config import Config
from makemore.counts import first_words, ladder, list_words, unseen_words
from makemore.data import Corpus
from makemore.model import MLP
from makemore.words import Vocab
from studies.harness.report.judge import findings
from studies.harness.report.judge.findings import (
    LECTURES,
    N_SHOWN,
    check_model,
    judge_study,
    plain_value,
)
from studies.harness.report.results import read_results
from tests.studies.synthetic import (
    BASE,
    PARAMS,
    SPACE,
    falling,
    make_study,
    make_trial,
    random_trials,
    repeats_of,
    results_of,
)


def test_random_study_has_every_verdict() -> None:
    study = make_study(random_trials(60, lambda p: 2 + 0.5 / p["block_size"]))
    best = int(read_results(study).trials.trial[0])
    study.add_trials(repeats_of(best, 2.07, 2.08, 2.09))

    findings = judge_study(read_results(study))

    verdicts = {found.name: found.verdict for found in findings.ranges}
    assert list(verdicts) == list(SPACE)
    assert verdicts["block_size"] == "widen"
    assert findings.best is not None and findings.best.trial == best
    assert findings.noise is not None and findings.noise.sd == pytest.approx(0.01)
    assert findings.winner is not None and findings.winner.loss == pytest.approx(2.08)
    assert findings.budget.verdict == "lengthen"
    assert findings.pruning.n_pruned == findings.outcomes["pruned"] > 10
    assert [found.share for found in findings.rank_correlations] == [0.25, 0.5]
    assert findings.pruning.n_audited == 0 and findings.pruning.verdict == "unknown"
    assert findings.stopping.verdict in ("continue", "stop")  # fewer than half were pruned
    assert findings.curve.best.iloc[-1] == findings.best.dev_loss


def test_outcomes_count_diverged_trials_apart() -> None:
    findings = judge_study(
        results_of(
            make_trial(PARAMS, falling(2.2)),
            make_trial(PARAMS, falling(2.3)),
            make_trial(PARAMS, [2.9], state="PRUNED"),
            make_trial(PARAMS, [], state="PRUNED", reason="diverged at step 9"),
            make_trial(PARAMS, [], state="PRUNED", reason="out of memory"),
            make_trial(PARAMS, [], state="FAIL"),
        )
    )

    assert findings.outcomes == {
        "complete": 2,
        "pruned": 1,
        "diverged": 1,
        "out of memory": 1,
        "fail": 1,
    }


def test_config_joins_base_and_best_parameters() -> None:
    findings = judge_study(results_of(make_trial(PARAMS, falling(2.2))))

    assert findings.config == {**BASE, **PARAMS}
    # Numbers are Python's, whole ones without a fraction.
    assert {type(findings.config[name]) for name in ("block_size", "n_hidden")} == {int}


def test_empty_study_has_no_best_trial() -> None:
    findings = judge_study(results_of())

    assert findings.best is None
    assert findings.config == {}
    assert findings.outcomes == {}
    assert findings.max_steps == 1
    assert findings.budget.verdict == findings.stopping.verdict == "unknown"


def test_model_is_measured_on_words_not_in_train(corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16, init="kaiming"), len(corpus.vocab))

    check = check_model(corpus, model)

    assert check.n_new == len(unseen_words(corpus)) < check.n_dev
    assert check.dev_loss is not None
    assert check.dev_loss == pytest.approx(model.loss(*corpus.dev.tensors(3)).item(), rel=1e-5)
    # The gap is between two exact means.
    train_loss = model.loss(*corpus.train.tensors(3)).item()
    assert check.train_loss == pytest.approx(train_loss, rel=1e-5)
    assert check.gap == pytest.approx(check.dev_loss - train_loss, abs=1e-4)
    assert check.new_loss is not None
    train = set(list_words(corpus.train, corpus.vocab))
    assert len(check.words) == N_SHOWN and not train & set(check.words)
    assert check.share_in_train is not None and 0 <= check.share_in_train < 1
    assert check.lectures == LECTURES


def test_without_a_finite_model_only_baselines_remain(small_corpus: Corpus) -> None:
    model = MLP(Config(block_size=3, n_embd=4, n_hidden=16), len(small_corpus.vocab))
    with torch.no_grad():
        model.W1.fill_(float("nan"))

    for check in (check_model(small_corpus, None), check_model(small_corpus, model)):
        assert check.rungs and check.n_dev == 3
        assert (check.dev_loss, check.new_loss, check.share_in_train) == (None, None, None)
        assert check.train_loss is None and check.gap is None
        # The lectures' losses are of other words.
        assert check.lectures == {}


@pytest.mark.parametrize(
    ("value", "plain"),
    [(np.float64(200.0), 200), (np.int64(3), 3), (0.1, 0.1), ("sgd", "sgd"), (True, True)],
)
def test_table_values_become_python_values(value: object, plain: object) -> None:
    found = plain_value(value)

    assert found == plain and type(found) is type(plain)


def test_large_file_is_checked_with_its_first_words(
    corpus: Corpus, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[int] = []
    score = findings.score_words

    def count_words(model: MLP, vocab: Vocab, words: Sequence[str]) -> np.ndarray:
        measured.append(len(words))
        return score(model, vocab, words)

    monkeypatch.setattr(findings, "score_words", count_words)
    monkeypatch.setattr(findings, "MAX_WORDS", (2000, 100))
    check = check_model(corpus, MLP(Config(), len(corpus.vocab)))

    assert measured == [100] and check.n_dev == 100
    # Words are new if they are nowhere in train, also in the part that is not counted.
    new = set(unseen_words(corpus))
    assert check.n_new == sum(word in new for word in list_words(corpus.dev, corpus.vocab)[:100])
    small = first_words(corpus, 2000, 100)
    assert check.rungs[1].dev_loss == ladder(small)[1].dev_loss
    assert check.limit == (
        "The file is large: 2,000 of 25,805 train words are counted. The counting models, and "
        "losses on new words, are measured with 100 of 3,226 dev words."
    )
