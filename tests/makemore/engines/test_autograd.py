"""The autograd engine with models of a user's class; the contract tests train the MLP in it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from makemore.data import Corpus
from makemore.engines import Envelope, EvalPoint, TrainResult, make_engine
from makemore.engines.autograd import AutogradEngine, AutogradSlot
from makemore.evaluation import evaluate
from makemore.models import Network, build
from tests.makemore.engines.table import outcomes_of, train_alone
from tests.own_model import OwnConfig, OwnModel

CONFIG = OwnConfig(
    n_hidden=12, n_layers=2, batch_size=16, max_steps=12, eval_interval=4, dropout=0.3, seed=2
)


@pytest.fixture
def engine(small_corpus: Corpus) -> Iterator[AutogradEngine]:
    engine = AutogradEngine(small_corpus, 3, OwnModel)
    yield engine
    engine.close()


def network_of(result: TrainResult) -> Network:
    assert isinstance(result.model, Network)
    return result.model


@pytest.mark.parametrize("ema", [0.0, 0.3])
def test_result_has_the_buffers_of_its_best_weights(
    engine: AutogradEngine, small_corpus: Corpus, ema: float
) -> None:
    # Enough steps to overfit 24 words, so that the dev loss rises at the end.
    config = CONFIG.replace(lr=0.5, max_steps=200, eval_interval=10, ema=ema, dropout=0.0)
    result = train_alone(engine, config)

    assert result.best.step < 200
    assert evaluate(result.model, small_corpus.dev) == pytest.approx(result.best.dev_loss, rel=1e-6)
    state = network_of(result).module.state_dict()
    # Running statistics of another step would give another loss.
    assert int(state["layers.0.1.num_batches_tracked"]) == result.best.step


def test_average_of_all_steps_is_their_mean(small_corpus: Corpus) -> None:
    config = CONFIG.replace(ema=1.0, dropout=0.0)
    slot, plain = (AutogradSlot(c, small_corpus, OwnModel) for c in (config, config.replace(ema=0)))
    states = []
    for _ in range(5):
        slot.run(1)
        plain.run(1)
        states.append({name: t.clone() for name, t in plain.model.state_dict().items()})

    for name, mean in slot.average.state_dict().items():
        steps = torch.stack([state[name] for state in states])
        if mean.is_floating_point():
            torch.testing.assert_close(mean, steps.mean(0), rtol=1e-4, atol=1e-6)
        else:
            assert mean == steps[-1] == 5


def test_trials_with_dropout_do_not_depend_on_each_other(engine: AutogradEngine) -> None:
    configs = [CONFIG.replace(seed=seed, n_layers=n) for seed, n in ((1, 1), (2, 2), (3, 1))]
    alone = [train_alone(engine, config) for config in configs]
    torch.manual_seed(0)
    slots = {engine.admit(config): config for config in configs}
    outcomes_of(engine, dict(slots))
    together = [engine.remove(slot) for slot in slots]

    for a, b in zip(alone, together, strict=True):
        assert a.history == b.history
        assert torch.equal(a.model.flat, b.model.flat)


def test_result_is_a_plain_module_of_the_class(engine: AutogradEngine) -> None:
    result = train_alone(engine, CONFIG)
    module = network_of(result).module

    assert type(module) is OwnModel and not module.training
    assert any(type(layer) is nn.Dropout for layer in module.modules())
    assert result.n_params == len(result.model.flat) == sum(p.numel() for p in module.parameters())


def test_frozen_parameters_stay(small_corpus: Corpus) -> None:
    class Frozen(OwnModel):
        def __init__(self, config: OwnConfig, vocab_size: int) -> None:
            super().__init__(config, vocab_size)
            self.embed.weight.requires_grad_(False)

    engine = AutogradEngine(small_corpus, 1, Frozen)
    result = train_alone(engine, CONFIG.replace(weight_decay=0.5))
    engine.close()

    initial = build(Frozen, CONFIG, len(small_corpus.vocab)).state_dict()
    trained = network_of(result).module.state_dict()
    assert torch.equal(trained["embed.weight"], initial["embed.weight"])
    assert not torch.equal(trained["logits.weight"], initial["logits.weight"])


def test_model_gets_the_autograd_engine(small_corpus: Corpus) -> None:
    engine = make_engine("cpu", small_corpus, 2, Envelope.around(CONFIG), OwnModel)

    assert isinstance(engine, AutogradEngine) and engine.capacity == 2
    slot = engine.admit(CONFIG)
    (outcomes,) = outcomes_of(engine, {slot: CONFIG}).values()
    assert [point.step for point in outcomes if isinstance(point, EvalPoint)] == [4, 8, 12]
    engine.close()
