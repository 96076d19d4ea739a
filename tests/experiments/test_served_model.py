"""A registered model, loaded and served: names, log-likelihoods, probabilities, refusals."""

from __future__ import annotations

import ast
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException

from experiments.logged_model import CODE, save_served
from makemore.checkpoint import load_checkpoint, save_checkpoint
from makemore.config import Config
from makemore.data import Corpus, build_dataset, load_corpus
from makemore.engines import TrainResult
from makemore.models import Model
from makemore.sampling import sample_words
from makemore.trainer import train
from makemore.words import read_words

Retrain = Callable[..., Any]


@pytest.fixture(scope="module")
def trained(corpus: Corpus) -> TrainResult:
    return train(
        Config(max_steps=500, eval_interval=500, n_hidden=16, init="kaiming"), corpus, device="cpu"
    )


@pytest.fixture
def served(tmp_path: Path, corpus: Corpus, trained: TrainResult) -> Path:
    """A folder with an MLflow model, without a registry."""
    checkpoint = save_checkpoint(tmp_path / "model.safetensors", trained.model, corpus.vocab)
    save_served(tmp_path / "served", checkpoint)
    checkpoint.unlink()
    return tmp_path / "served"


@torch.no_grad()
def probabilities(model: Model, prefixes: list[str], corpus: Corpus) -> np.ndarray:
    """Return the softmax at the last context of each prefix, (N, V)."""
    rows = [
        build_dataset([prefix], corpus.vocab, model.config.block_size)[0][-1] for prefix in prefixes
    ]
    return torch.softmax(model(torch.stack(rows)).double(), 1).numpy()


@torch.no_grad()
def log_likelihood(model: Model, name: str, corpus: Corpus) -> float:
    X, Y = build_dataset([name], corpus.vocab, model.config.block_size)
    return -float(torch.nn.functional.cross_entropy(model(X).double(), Y, reduction="sum"))


# ---- the model as a folder


def test_model_needs_only_the_installed_package(
    served: Path,
) -> None:
    files = {str(path.relative_to(served)) for path in served.rglob("*") if path.is_file()}
    assert "artifacts/model.safetensors" in files and "input_example.json" in files
    assert not [name for name in files if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]
    nodes = list(ast.walk(ast.parse((served / CODE.name).read_text())))
    imported = {node.module for node in nodes if isinstance(node, ast.ImportFrom)}
    imported |= {
        alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names
    }
    roots = {str(name).split(".")[0] for name in imported}
    assert roots == {"__future__", "typing", "mlflow", "pandas", "torch", "makemore"}


def test_names_come_with_their_log_likelihood(
    served: Path, corpus: Corpus, trained: TrainResult
) -> None:
    model = mlflow.pyfunc.load_model(str(served))
    asked = pd.DataFrame(
        {"prefix": ["al", ""], "n": [3, 2], "temperature": [0.5, 2.0], "seed": [7, 8]}
    )
    answer = model.predict(asked)
    assert list(answer.columns) == ["prefix", "name", "log_likelihood", "nats_per_character"]
    assert list(answer.prefix) == ["al"] * 3 + [""] * 2
    expected = sample_words(trained.model, corpus.vocab, 3, seed=7, temperature=0.5, prefix="al")
    expected += sample_words(trained.model, corpus.vocab, 2, seed=8, temperature=2.0)
    assert list(answer.name) == expected
    for row in answer.itertuples():
        assert row.log_likelihood == pytest.approx(
            log_likelihood(trained.model, row.name, corpus), abs=1e-5
        )
        assert row.nats_per_character == pytest.approx(-row.log_likelihood / (len(row.name) + 1))
    # The optional columns have defaults, and n may be 0.
    assert list(model.predict(pd.DataFrame({"prefix": ["al"]})).name) == sample_words(
        trained.model, corpus.vocab, 1, seed=0, prefix="al"
    )
    assert len(model.predict(pd.DataFrame({"prefix": ["al"], "n": [0]}))) == 0


def test_probabilities_equal_those_of_torch(
    served: Path, corpus: Corpus, trained: TrainResult
) -> None:
    prefixes = sorted({word[:i] for word in read_words()[:60] for i in range(4)})[:100]
    assert len(prefixes) == 100
    model = mlflow.pyfunc.load_model(str(served))
    answer = model.predict(pd.DataFrame({"prefix": prefixes}), params={"probabilities": True})
    assert (
        list(answer.columns) == ["prefix", *corpus.vocab.symbols]
        and list(answer.prefix) == prefixes
    )
    expected = probabilities(trained.model, prefixes, corpus)
    assert np.abs(answer.drop(columns="prefix").to_numpy() - expected).max() < 1e-6


@pytest.mark.parametrize(
    ("row", "params", "sentence"),
    [
        ({"prefix": "a1"}, {}, "'a1' holds '1', which is not one of the symbols"),
        ({"prefix": "a."}, {}, "prefix 'a.' holds '.', which ends a word; leave it out."),
        (
            {"prefix": "a."},
            {"probabilities": True},
            "a prefix holds '.', which ends a word; leave it out.",
        ),
        ({"prefix": "a", "n": -1}, {}, "n must be between 0 and 100,000, but got -1."),
        ({"prefix": "a", "temperature": 0.0}, {}, "temperature must be greater than 0 and finite"),
        ({"prefix": "a", "n": 1.5}, {}, "Incompatible input types for column n."),
        ({"n": 1}, {}, "Model is missing inputs ['prefix']."),
    ],
)
def test_bad_request_is_refused(
    served: Path, row: dict[str, Any], params: dict[str, Any], sentence: str
) -> None:
    with pytest.raises(MlflowException) as refused:
        mlflow.pyfunc.load_model(str(served)).predict(pd.DataFrame([row]), params=params)
    assert sentence in refused.value.message


def test_damaged_model_is_refused(served: Path) -> None:
    path = served / "artifacts" / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(
        ValueError, match="model.safetensors: is cut short or not a safetensors file"
    ):
        mlflow.pyfunc.load_model(str(served))


# ---- served


@contextmanager
def serve(uri: str) -> Iterator[str]:
    """Run `mlflow models serve` on 127.0.0.1 during the block; yields its address."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    flags = ["-m", uri, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    # mlflow finds its server on the PATH.
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    command, base = (
        [sys.executable, "-m", "mlflow", "models", "serve", *flags],
        f"http://127.0.0.1:{port}",
    )
    with open("serve.log", "wb") as log:
        server = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        for _ in range(600):
            try:
                urllib.request.urlopen(f"{base}/ping", timeout=5).close()
                break
            except OSError:
                assert server.poll() is None, Path("serve.log").read_text()
                time.sleep(0.1)
        yield base
    finally:
        os.killpg(server.pid, signal.SIGTERM)
        server.wait(20)


def post(base: str, **body: Any) -> Any:
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{base}/invocations", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)["predictions"]


@pytest.mark.server
def test_server_answers_as_the_loaded_model(config: Path, retrain: Retrain) -> None:
    checkpoint = retrain(config, "--json").json["checkpoint"]
    loaded = mlflow.pyfunc.load_model("models:/makemore-mlp@champion")
    corpus, model = load_corpus("words.txt"), load_checkpoint(checkpoint).model
    rows = [
        {"prefix": "a", "n": 4, "temperature": 0.8, "seed": 1},
        {"prefix": "", "n": 2, "temperature": 1, "seed": 2},
    ]
    prefixes = sorted({word[:i] for word in read_words("words.txt") for i in range(4)})[:100]
    with serve("models:/makemore-mlp@champion") as base:
        names = pd.DataFrame(post(base, dataframe_records=rows))
        pd.testing.assert_frame_equal(names, loaded.predict(pd.DataFrame(rows)))
        asked = [{"prefix": prefix} for prefix in prefixes]
        answer = pd.DataFrame(post(base, dataframe_records=asked, params={"probabilities": True}))
        found = answer[list(corpus.vocab.symbols)].to_numpy()
        assert np.abs(found - probabilities(model, prefixes, corpus)).max() < 1e-6
        with pytest.raises(urllib.error.HTTPError) as refused:
            post(base, dataframe_records=[{"prefix": "a1"}])
        with refused.value as error:
            assert error.code == 400 and "'a1' holds '1'" in json.load(error)["message"]
