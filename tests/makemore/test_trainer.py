"""Training of one model, as a function and as a command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from makemore.checkpoint import load_checkpoint
from makemore.config import Config
from makemore.data import Corpus, Examples, load_corpus
from makemore.engines import Diverged, EvalPoint
from makemore.engines.base import DIVERGED_LOSS
from makemore.errors import UserError
from makemore.evaluation import evaluate
from makemore.model import MLP
from makemore.sampling import sample_words
from makemore.trainer import main, train
from makemore.words import Vocab
from tests.conftest import ROOT, write_small_names
from tests.own_model import OwnConfig, OwnModel

CONFIG = Config(n_embd=2, n_hidden=8, batch_size=4, max_steps=70, eval_interval=20, init="kaiming")
FLAGS = (
    "--n-embd 2 --n_hidden 8 --batch-size 4 --max-steps 70 --eval_interval 20 "
    "--init kaiming --device cpu"
).split()
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT)}
HUGE = "--n-hidden 65535 --n-embd 65535 --block-size 32".split()


# --- evaluate


@pytest.mark.parametrize("chunk", [1_000, 4_096, 30_000])
def test_evaluate_is_the_exact_mean_over_the_split(corpus: Corpus, chunk: int) -> None:
    model = MLP(Config(seed=1), len(corpus.vocab))
    dev = corpus.dev
    total = 0.0
    with torch.no_grad():
        for start in range(0, len(dev), chunk):
            X, Y = dev.tensors(3, slice(start, start + chunk))
            total += torch.nn.functional.cross_entropy(model(X).double(), Y, reduction="sum").item()

    assert evaluate(model, dev) == pytest.approx(total / len(dev), rel=1e-6)
    assert evaluate(model, dev) == evaluate(model, dev)


# --- train


def test_training_learns(corpus: Corpus) -> None:
    result = train(Config(max_steps=2000, eval_interval=1000, init="kaiming"), corpus, device="cpu")

    # A bigram model has 2.45 and a uniform guess ln 27 = 3.30.
    assert result.best.dev_loss < 2.5
    assert evaluate(result.model, corpus.train) == pytest.approx(result.best.dev_loss, abs=0.05)


def test_training_twice_gives_the_same_bits(small_corpus: Corpus) -> None:
    one, two = (train(CONFIG, small_corpus, device="cpu") for _ in range(2))

    assert torch.equal(one.model.flat, two.model.flat) and one.history == two.history


def test_another_seed_gives_another_model(small_corpus: Corpus) -> None:
    one, two = (train(CONFIG.replace(seed=seed), small_corpus, device="cpu") for seed in (1, 2))

    assert one.best.dev_loss != two.best.dev_loss


def test_on_eval_does_not_change_the_training(small_corpus: Corpus) -> None:
    seen: list[EvalPoint] = []

    alone = train(CONFIG, small_corpus, device="cpu")
    watched = train(CONFIG, small_corpus, device="cpu", on_eval=seen.append)

    assert torch.equal(alone.model.flat, watched.model.flat)
    assert tuple(seen) == watched.history == alone.history


def test_evaluations_are_at_intervals_and_the_end(small_corpus: Corpus) -> None:
    result = train(CONFIG, small_corpus, device="cpu")
    long_interval = train(CONFIG.replace(eval_interval=1000), small_corpus, device="cpu")

    assert [point.step for point in result.history] == [20, 40, 60, 70]
    # The default schedule is the lecture's: lr / 10 from half of max_steps.
    assert [point.lr for point in result.history] == pytest.approx([0.1, 0.01, 0.01, 0.01])
    assert [point.step for point in long_interval.history] == [70]
    assert long_interval.history[-1].dev_loss == result.history[-1].dev_loss


def test_model_has_the_weights_of_the_best_evaluation(small_corpus: Corpus) -> None:
    # With a large lr on 24 words the dev loss rises again, so the best is not the last.
    config = CONFIG.replace(lr=1.0, schedule="constant", max_steps=2000, eval_interval=50)
    result = train(config, small_corpus, device="cpu")

    assert result.best.dev_loss == min(point.dev_loss for point in result.history)
    assert result.best.step < 2000
    assert evaluate(result.model, small_corpus.dev) == pytest.approx(result.best.dev_loss, rel=1e-6)
    assert result.n_params == result.model.flat.numel() and result.seconds > 0


class Enough(Exception):
    pass


def test_exception_of_on_eval_reaches_the_caller(small_corpus: Corpus) -> None:
    seen: list[int] = []

    def prune(point: EvalPoint) -> None:
        seen.append(point.step)
        if point.step == 40:
            raise Enough

    with pytest.raises(Enough):
        train(CONFIG, small_corpus, device="cpu", on_eval=prune)
    assert seen == [20, 40]


def test_divergence_has_its_step_and_loss(corpus: Corpus) -> None:
    with pytest.raises(
        Diverged, match="training diverged: loss .* at step .*; lower the learning rate."
    ) as caught:
        train(Config(lr=1e3, max_steps=2000, eval_interval=1000), corpus, device="cpu")

    assert 1 <= caught.value.step <= 1000 and not caught.value.loss <= DIVERGED_LOSS


def test_unknown_device_is_refused(small_corpus: Corpus) -> None:
    with pytest.raises(UserError, match="device 'tpu' is unknown; use auto, cpu"):
        train(CONFIG, small_corpus, device="tpu")


def test_words_with_dots_train_like_others(words: list[str]) -> None:
    # "." sorts before the letters, so replacing "a" by "." keeps the codes.
    dotted = [word.replace("a", ".") for word in words]
    plain, with_dots = (
        Corpus(
            vocab := Vocab.of(some),
            Examples.of(some[:24], vocab),
            Examples.of(some[24:], vocab),
            "0" * 64,
            "words",
        )
        for some in (words, dotted)
    )

    one = train(CONFIG, plain, device="cpu")
    two = train(CONFIG, with_dots, device="cpu")

    # The boundary is only displayed differently.
    assert (plain.vocab.boundary, with_dots.vocab.boundary) == (".", "|")
    assert torch.equal(one.model.flat, two.model.flat) and one.history == two.history
    sampled = sample_words(one.model, plain.vocab, 20, seed=1)
    assert [word.replace("a", ".") for word in sampled] == sample_words(
        two.model, with_dots.vocab, 20, seed=1
    )


# --- the command


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str]) -> Path:
    """An empty working directory with a file of thirty words."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "thirty.txt").write_text("\n".join(words))
    return tmp_path


def run(capsys: pytest.CaptureFixture[str], *argv: str) -> tuple[int, str, str]:
    """Run the command in this process; return its exit code, stdout and stderr."""
    code = 0
    try:
        main(argv)
    except SystemExit as stopped:
        code = stopped.code if isinstance(stopped.code, int) else 1
    out, err = capsys.readouterr()
    return code, out, err


def test_command_saves_the_model_and_prints_json(
    folder: Path, capsys: pytest.CaptureFixture[str], small_corpus: Corpus
) -> None:
    code, out, err = run(capsys, *FLAGS, "--names", "thirty.txt", "--json")
    expected = train(CONFIG, small_corpus, device="cpu")
    lines = out.splitlines()
    summary = json.loads(lines[-1])
    loaded = load_checkpoint(summary["checkpoint"])

    assert code == 0
    assert torch.equal(loaded.model.flat, expected.model.flat) and loaded.model.config == CONFIG
    assert summary["dev_loss"] == evaluate(expected.model, small_corpus.dev)
    assert summary["dev_loss"] == loaded.metadata["dev_loss"]
    assert summary["train_loss"] == evaluate(expected.model, small_corpus.train)
    assert (summary["steps"], summary["best_step"]) == (70, expected.best.step)
    assert summary["n_params"] == expected.n_params
    assert summary["steps_per_s"] > 0 and summary["seconds"] >= 0
    # Two lines about the training, 20 words, the JSON; on stderr a line for each evaluation.
    assert len(lines) == 2 + 20 + 1 and f"dev loss {summary['dev_loss']:.4f}" in lines[0]
    assert err.count("steps/s") == 4 and "step 70 of 70" in err
    # All files that it writes are in mlruns/.
    assert {path.name for path in folder.iterdir()} == {"thirty.txt", "mlruns"}
    assert Path(summary["checkpoint"]).parent == Path("mlruns/checkpoints")


def test_flags_override_the_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.toml").write_text(CONFIG.replace(direct=True, lr=0.5, seed=3).to_toml())

    flags = "--names thirty.txt --lr 0.25 --seed 9 --out a/b.st".split()
    code, _, _ = run(capsys, "mine.toml", *flags)

    assert code == 0
    assert load_checkpoint("a/b.st").model.config == CONFIG.replace(direct=True, lr=0.25, seed=9)


def test_each_config_has_its_own_checkpoint(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for lr in ("0.1", "0.2", "0.1"):
        assert run(capsys, *FLAGS, "--names", "thirty.txt", "--lr", lr)[0] == 0

    assert len(list(Path("mlruns/checkpoints").iterdir())) == 2


def test_config_of_other_words_is_trained_with_a_warning(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    origin = {"data": "french.txt", "data_sha256": "1" * 64}
    Path("french.toml").write_text(CONFIG.to_toml(origin=origin), encoding="utf-8")

    code, _, err = run(capsys, "french.toml", "--names", "thirty.txt", "--device", "cpu")

    assert code == 0
    assert err.startswith(
        "Warning: french.toml was found on the words of french.txt, not on thirty.txt.\n"
    )


def test_command_accepts_words_with_dots(
    folder: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    Path("dots.txt").write_text("\n".join(f"{word}." for word in words))

    code, out, err = run(capsys, *FLAGS, "--names", "dots.txt", "--out", "dots.safetensors")
    loaded = load_checkpoint("dots.safetensors")

    assert code == 0 and loaded.vocab.symbols[:3] == ("|", ".", "a")
    sampled = sample_words(loaded.model, loaded.vocab, 20, seed=CONFIG.seed)
    assert out.splitlines()[-20:] == sampled and any("." in word for word in sampled)


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["none.toml"], "none.toml: no such file"),
        (["thirty.txt"], "thirty.txt: not valid TOML"),
        (["bad.toml"], "bad.toml: n_hiden is not a field of Config; did you mean n_hidden."),
        (["--names", "none.txt"], "none.txt: no such file"),
        (["--names", "few.txt"], "few.txt: 2 words are too few"),
        (["--lr", "-1"], "command line: lr must be greater than 0, but got -1.0."),
        (["--block-size", "99"], "command line: block_size must be at most 32, but got 99."),
        (["--device", "tpu"], "device 'tpu' is unknown"),
        (["--out", "."], ".: is a directory; give --out the path of a file."),
        (["--out", "/dev/null"], "/dev/null: is not a regular file; give --out another path."),
        (["--out", "x" * 300], f"{'x' * 300}: cannot be written (File name too long)"),
        (["--out", "thirty.txt/model"], "thirty.txt/model: cannot be written"),
        (
            [*HUGE, "--device", "cpu"],
            "a model of 137,438,363,652 parameters (512 GiB) does not fit into memory",
        ),
    ],
)
def test_user_error_is_one_sentence_and_exit_code_2(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], sentence: str
) -> None:
    Path("bad.toml").write_text("[config]\nn_hiden = 3\n")
    Path("few.txt").write_text("emma\nava\n")

    code, out, err = run(capsys, *argv)

    assert (code, out) == (2, "")
    assert sentence in err and len(err.splitlines()) == 1 and err.endswith(".\n")


@pytest.mark.parametrize(
    ("argv", "hint"),
    [
        (["--n-hiden", "3"], "--n-hidden"),
        (["--optimizer", "adam"], "sgd"),
        (["--lr", "fast"], '"fast"'),
    ],
)
def test_unreadable_flag_exits_with_2_and_a_hint(
    folder: Path, capsys: pytest.CaptureFixture[str], argv: list[str], hint: str
) -> None:
    code, out, err = run(capsys, *argv)

    assert (code, out) == (2, "")
    assert hint in err


def test_divergence_is_one_sentence_and_exit_code_1(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, out, err = run(capsys, *FLAGS, "--names", "thirty.txt", "--lr", "1e30")

    assert (code, out) == (1, "")
    assert err.splitlines()[-1].startswith("training diverged: loss")
    assert not list(Path().rglob("*.safetensors"))


def test_ctrl_c_is_one_sentence_and_exit_code_130(tmp_path: Path) -> None:
    flags = "--max-steps 4000000000 --eval-interval 500 --device cpu".split()
    process = subprocess.Popen(
        [sys.executable, "-m", "makemore.trainer", *flags],
        cwd=tmp_path,
        env=ENVIRONMENT,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    while "step 500 of" not in process.stderr.readline():
        assert process.poll() is None

    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)

    assert process.returncode == 130
    assert err.splitlines()[-1] == "Interrupted." and "Traceback" not in err


def test_help_does_not_import_slow_modules(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "makemore.trainer", "--help"],
        cwd=tmp_path,
        env={**ENVIRONMENT, "COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=60,
    )
    # A line of -X importtime ends in the module's name.
    imported = {line.split("|")[-1].strip() for line in done.stderr.splitlines()}

    assert done.returncode == 0 and "--eval-interval" in done.stdout
    assert "makemore.config" in imported
    assert imported.isdisjoint(["torch", "numba", "scipy", "pandas", "matplotlib", "numpy"])


# --- a user's model


def test_own_model_is_trained_and_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    names = write_small_names(tmp_path / "names.txt")
    Path("own.toml").write_text(OwnConfig(n_layers=2, n_hidden=8, max_steps=20).to_toml())
    source = f"{ROOT}/tests/own_model.py:OwnModel"
    flags = ["own.toml", "--names", str(names), "--device", "cpu", "--out", "own.safetensors"]

    main([*flags, "--model", source, "--json", "--lr", "0.2"])

    summary = json.loads(capsys.readouterr().out.splitlines()[-1])
    model = load_checkpoint("own.safetensors", OwnModel).model
    assert model.config == OwnConfig(n_layers=2, n_hidden=8, max_steps=20, lr=0.2)
    assert summary["dev_loss"] == evaluate(model, load_corpus(names).dev)
    assert summary["n_params"] == len(model.flat)
    with pytest.raises(SystemExit) as stopped:
        main(flags)
    assert stopped.value.code == 2
    assert "own.toml: n_layers is not a field of Config" in capsys.readouterr().err
