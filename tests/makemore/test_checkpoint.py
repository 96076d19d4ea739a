"""Checkpoints: round trips, and files that are refused."""

from __future__ import annotations

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors
import safetensors.torch
import torch

from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.errors import UserError
from makemore.model import MLP
from makemore.model_class import NeedsClass
from makemore.models import Network, build
from makemore.words import Vocab
from tests.own_model import OwnConfig, OwnModel, Transposed

CONFIG = Config(block_size=2, n_embd=3, n_hidden=5, direct=True, lr=0.123)
VOCAB = Vocab("abж😀")
METADATA = {"dev_loss": 2.17, "origin": {"study": "mlp", "trial": 7}, "note": "ß"}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return save_checkpoint(
        tmp_path / "model.safetensors", MLP(CONFIG, len(VOCAB)), VOCAB, **METADATA
    )


@pytest.mark.parametrize("direct", [False, True])
def test_model_is_loaded_as_saved(tmp_path: Path, direct: bool) -> None:
    model = MLP(CONFIG.replace(direct=direct), len(VOCAB))
    loaded = load_checkpoint(
        save_checkpoint(tmp_path / "new" / "folder" / "m.safetensors", model, VOCAB, **METADATA)
    )

    assert loaded.model.config == model.config
    assert loaded.vocab == VOCAB and loaded.metadata == METADATA
    assert torch.equal(loaded.model.flat, model.flat)
    assert torch.equal(loaded.model(torch.tensor([[1, 2]])), model(torch.tensor([[1, 2]])))


def test_boundary_is_loaded_with_the_vocabulary(tmp_path: Path) -> None:
    vocab = Vocab.of(["M.", "Mlle"])
    model = MLP(CONFIG, len(vocab))

    loaded = load_checkpoint(save_checkpoint(tmp_path / "m.safetensors", model, vocab))

    assert loaded.vocab == vocab and loaded.vocab.symbols == tuple("|.Mel")


def test_same_model_gives_the_same_bytes(tmp_path: Path) -> None:
    model = MLP(CONFIG, len(VOCAB))
    # safetensors orders metadata differently at each call, so eight files would show it.
    files = {
        save_checkpoint(tmp_path / f"{i}", model, VOCAB, **METADATA).read_bytes() for i in range(8)
    }

    assert len(files) == 1


def test_safetensors_alone_reads_the_file(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        metadata, names = file.metadata(), set(file.keys())

    assert names == {"C", "W1", "b1", "W2", "b2", "Wd"}
    assert json.loads(metadata["config"]) == CONFIG.model_dump()
    assert json.loads(metadata["vocab"]) == "abж😀" and json.loads(metadata["dev_loss"]) == 2.17


def test_header_keeps_tensors_aligned(path: Path) -> None:
    assert int.from_bytes(path.read_bytes()[:8], "little") % 8 == 0


def test_file_cut_anywhere_is_refused(path: Path) -> None:
    raw = path.read_bytes()

    for length in [0, 1, 8, 9, 100, *range(101, len(raw), 50), len(raw) - 1]:
        path.write_bytes(raw[:length])
        with pytest.raises(
            UserError, match="model.safetensors: is cut short or not a safetensors file"
        ):
            load_checkpoint(path)


class Bomb:
    """An object that creates a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable, tuple]:
        return self.path.touch, ()


def test_pickle_is_refused_and_never_run(path: Path, tmp_path: Path) -> None:
    mark = tmp_path / "code ran"
    for write in (
        lambda: path.write_bytes(pickle.dumps(Bomb(mark))),
        lambda: torch.save(Bomb(mark), path),
    ):
        write()
        with pytest.raises(UserError, match="not a safetensors file"):
            load_checkpoint(path)
    assert not mark.exists()


def test_path_without_a_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="missing: no such file"):
        load_checkpoint(tmp_path / "missing")
    with pytest.raises(UserError, match=f"{tmp_path}: cannot be read"):
        load_checkpoint(tmp_path)


def test_pipes_and_devices_are_not_read(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo")
    for path in (tmp_path / "fifo", Path("/dev/zero")):
        with pytest.raises(UserError, match=f"{path}: is not a regular file; give the path of a"):
            load_checkpoint(path)


def drop(key: str) -> Callable[[dict, dict], None]:
    return lambda tensors, texts: texts.pop(key)


def put(key: str, value: object) -> Callable[[dict, dict], None]:
    return lambda tensors, texts: texts.__setitem__(key, json.dumps(value))


def tensor(
    name: str, change: Callable[[torch.Tensor], torch.Tensor]
) -> Callable[[dict, dict], None]:
    return lambda tensors, texts: tensors.__setitem__(name, change(tensors[name]).contiguous())


@pytest.mark.parametrize(
    ("tamper", "message"),
    [
        (lambda tensors, texts: texts.clear(), "is not a checkpoint of this project"),
        (drop("format"), "is not a checkpoint of this project"),
        (put("format", "makemore-mlp/3"), "is not a checkpoint of this project"),
        (
            lambda tensors, texts: texts.__setitem__("config", "{"),
            "is not a checkpoint of this project",
        ),
        (drop("config"), "lacks its config or its vocabulary"),
        (drop("vocab"), "lacks its config or its vocabulary"),
        (put("vocab", 5), "lacks its config or its vocabulary"),
        (put("vocab", "abba"), "its vocabulary has a character twice"),
        (put("vocab", "ab."), "needs float32 weights"),
        (put("vocab", "abж"), "needs float32 weights"),
        (put("config", {"lr": -1}), "lr must be greater than 0, but got -1."),
        (
            put("config", {**CONFIG.model_dump(), "hidden": 1}),
            "hidden is not a field of Config; did you mean n_hidden.",
        ),
        (put("config", CONFIG.replace(n_hidden=6).model_dump()), "needs float32 weights"),
        (
            put("config", CONFIG.replace(n_hidden=65_535, n_embd=65_535).model_dump()),
            "needs float32 weights",
        ),
        (put("config", CONFIG.replace(direct=False).model_dump()), "needs float32 weights"),
        (lambda tensors, texts: tensors.pop("b2"), "needs float32 weights"),
        (
            lambda tensors, texts: tensors.__setitem__("extra", torch.zeros(1)),
            "needs float32 weights",
        ),
        (tensor("W1", lambda t: t.T), "needs float32 weights"),
        (tensor("W1", lambda t: t.double()), "needs float32 weights"),
        (tensor("b1", lambda t: t / 0), "a weight is not finite"),
        (tensor("C", lambda t: t * torch.nan), "a weight is not finite"),
        (tensor("C", lambda t: t + 1e-6), "does not match its own digest"),
        (put("config", CONFIG.replace(lr=0.5).model_dump()), "does not match its own digest"),
        (put("vocab", "abж😁"), "does not match its own digest"),
        (put("dev_loss", 1.9), "does not match its own digest"),
        (drop("note"), "does not match its own digest"),
        (drop("digest"), "does not match its own digest"),
        (put("digest", 5), "does not match its own digest"),
    ],
)
def test_inconsistent_file_is_refused(
    path: Path, tamper: Callable[[dict, dict], None], message: str
) -> None:
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name).clone() for name in file.keys()}
        texts = file.metadata()
    tamper(tensors, texts)
    safetensors.torch.save_file(tensors, path, texts)

    with pytest.raises(UserError) as caught:
        load_checkpoint(path)
    assert str(caught.value).startswith(f"{path}: ") and message in str(caught.value)


def test_changed_byte_is_refused(path: Path) -> None:
    raw = path.read_bytes()
    for place in range(8, len(raw), 37):  # the first 8 bytes are the header's length
        changed = bytearray(raw)
        changed[place] ^= 1
        path.write_bytes(changed)
        with pytest.raises(UserError, match="model.safetensors: "):
            load_checkpoint(path)


def test_older_file_without_digest_is_read(path: Path) -> None:
    with safetensors.safe_open(path, "pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}
        texts = file.metadata()
    del texts["digest"]
    texts["format"] = json.dumps("makemore-mlp/1")
    safetensors.torch.save_file(tensors, path, texts)

    assert load_checkpoint(path).metadata == METADATA


def test_save_replaces_the_file_atomically(path: Path) -> None:
    before = path.read_bytes()
    with path.open("rb") as reader:
        save_checkpoint(path, MLP(CONFIG.replace(seed=1), len(VOCAB)), VOCAB)

        # A process that has the old file open still reads the old file.
        assert reader.read() == before != path.read_bytes()


def test_failed_save_keeps_the_old_file(path: Path) -> None:
    before = path.read_bytes()
    model = MLP(CONFIG, len(VOCAB))

    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_checkpoint(path, model, VOCAB, loss=float("nan"))
    with pytest.raises(ValueError, match="cannot be written as JSON"):
        save_checkpoint(path, model, VOCAB, when=object())
    with pytest.raises(OSError, match=str(path.parent)):
        save_checkpoint(path.parent, model, VOCAB)
    with pytest.raises(OSError, match="below"):
        save_checkpoint(path / "below", model, VOCAB)

    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    assert not list(path.parent.parent.glob(".*.tmp"))


# ---- models of a user's class


OWN = OwnConfig(block_size=2, n_embd=3, n_hidden=5, n_layers=2)


@pytest.fixture
def own_path(tmp_path: Path) -> Path:
    network = Network(build(OwnModel, OWN, len(VOCAB)), OWN, len(VOCAB))
    for buffer in network.module.buffers():
        buffer.fill_(3)
    return save_checkpoint(tmp_path / "own.safetensors", network, VOCAB, **METADATA)


def test_own_model_is_loaded_with_its_buffers(own_path: Path) -> None:
    loaded = load_checkpoint(own_path, OwnModel)

    assert loaded.model.config == OWN and loaded.metadata == METADATA
    assert isinstance(loaded.model, Network)
    assert type(loaded.model.module) is OwnModel and not loaded.model.module.training
    assert {float(buffer.max()) for buffer in loaded.model.module.buffers()} == {3.0}
    expected = build(OwnModel, OWN, len(VOCAB)).state_dict()["logits.weight"]
    assert torch.equal(loaded.model.module.state_dict()["logits.weight"], expected)


def test_own_model_needs_its_class(own_path: Path, path: Path) -> None:
    with pytest.raises(NeedsClass, match="is a checkpoint of the model OwnModel; give --model "):
        load_checkpoint(own_path)
    with pytest.raises(NeedsClass, match="of the model OwnModel, not of Transposed; give --model"):
        load_checkpoint(own_path, Transposed)
    with pytest.raises(NeedsClass, match="is a checkpoint of the MLP, not of OwnModel; leave --m"):
        load_checkpoint(path, OwnModel)


def test_class_that_was_changed_is_refused(own_path: Path) -> None:
    class OwnModel(Transposed):
        def __init__(self, config: OwnConfig, vocab_size: int) -> None:
            super().__init__(config, vocab_size)
            self.scale = torch.nn.Parameter(torch.ones(1))

    with pytest.raises(UserError, match="does not fit the class OwnModel, which differs in scale"):
        load_checkpoint(own_path, OwnModel)


def test_changed_file_of_an_own_model_is_refused(own_path: Path) -> None:
    raw = bytearray(own_path.read_bytes())
    raw[-1] ^= 1
    own_path.write_bytes(bytes(raw))

    with pytest.raises(UserError, match="does not match its own digest"):
        load_checkpoint(own_path, OwnModel)


def test_tied_weights_are_saved(tmp_path: Path) -> None:
    class Tied(torch.nn.Module):
        def __init__(self, config: Config, vocab_size: int) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(vocab_size, 4)
            self.logits = torch.nn.Linear(4, vocab_size)
            self.logits.weight = self.embed.weight

    network = Network(build(Tied, CONFIG, len(VOCAB)), CONFIG, len(VOCAB))
    loaded = load_checkpoint(save_checkpoint(tmp_path / "m", network, VOCAB), Tied)

    assert torch.equal(loaded.model.flat, network.flat)
